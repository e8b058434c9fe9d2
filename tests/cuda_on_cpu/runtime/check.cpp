// The callbacks of the compiler's instrumentation, and what each byte of memory remembers.
//
// -fsanitize=thread makes the compiler call __tsan_read4(address) and the like at each access, and
// -fsanitize=alignment,bounds,... calls __ubsan_handle_...; no sanitizer library is linked, these
// functions are the whole of it.
//
// Stricter than a device: all threads storing the same value is a race, and so is what one block
// reads of another's, fences or not. Known gap: a __syncwarp of part of a warp counts for all.
#include "runtime.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

// Who touched a byte last. Epochs of the block grow at each __syncthreads and with each block and
// never start again, so that nothing has to be cleared; those of a warp grow at each __syncwarp.
struct Trace {
    u32 block_epoch;
    u32 warp_epoch;
    u32 place; // offset of the instruction in the library, 0 if unknown
    u16 thread;
    u8 who;   // ONE thread, SEVERAL of one warp in one epoch of it, or MANY_WARPS
    u8 flags;
};

struct Cell {
    Trace write, read;
};

namespace {

enum { ONE, SEVERAL, MANY_WARPS };
enum { ATOMICALLY = 1, IN_FLIGHT = 2, BY_EARLIER_BLOCK = 4 };

u32 epoch, first_epoch; // of the running block; its first
u32 warp_epochs[MAX_THREADS / WARP_SIZE];

Cell *static_cells, *dynamic_cells;
size_t static_room;

const Region *last_region;

Cell *new_cells(size_t count) {
    if (!count) return nullptr;
    void *map = mmap(nullptr, count * sizeof(Cell), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) fail({nullptr, 0}, "out of memory for the checker");
    return static_cast<Cell *>(map);
}

// Whether all that the trace stands for comes before what the thread does now.
bool ordered(const Trace &trace, const Fiber *as) {
    if (trace.block_epoch < epoch) return true;
    if (trace.who == MANY_WARPS) return false;
    if (trace.who == ONE && trace.thread == as->index) return true;
    return trace.thread / WARP_SIZE == as->warp && trace.warp_epoch < warp_epochs[as->warp];
}

void add(Trace &trace, const Fiber *as, u32 place, u8 flags) {
    const u32 warp_epoch = warp_epochs[as->warp];
    if (trace.block_epoch == epoch) {
        if (trace.thread / WARP_SIZE != as->warp || trace.who == MANY_WARPS) {
            trace.who = MANY_WARPS;
            return;
        }
        if (trace.warp_epoch == warp_epoch && trace.thread != as->index) {
            trace.who = SEVERAL;
            return;
        }
        if (trace.who == SEVERAL && trace.warp_epoch == warp_epoch) return;
    } else if (trace.block_epoch && trace.block_epoch < first_epoch) {
        flags |= BY_EARLIER_BLOCK;
    }
    flags |= trace.flags & BY_EARLIER_BLOCK;
    trace = {epoch, warp_epoch, place, u16(as->index), ONE, flags};
}

struct Site {
    Where where;
    const void *pc;
    u32 place() const {
        const char *p = static_cast<const char *>(pc);
        return p ? u32(p - run.library_low) : 0;
    }
};

[[noreturn]] __attribute__((cold)) void fail_site(const Site &site, const char *text) {
    if (site.where.file) fail(site.where, "%s", text);
    fail_at(site.pc, "%s", text);
}

const char *verb(Access access) {
    return access == READ ? "read" : access == WRITE ? "written" : "updated by an atomic";
}

[[noreturn]] __attribute__((cold)) void fail_race(const Site &site, const Fiber *as, Access access,
                                                  const Trace &other, bool other_reads,
                                                  bool shared) {
    char text[512], by[128] = "";
    const Access before = other_reads ? READ : other.flags & ATOMICALLY ? ATOMIC : WRITE;
    size_t n = size_t(snprintf(text, sizeof text, "race on %s memory: %s by thread %u, %s by ",
                               shared ? "shared" : "global", verb(access), as->index,
                               verb(before)));
    if (!shared && other.block_epoch < first_epoch)
        snprintf(by, sizeof by, "thread %u of another block", other.thread);
    else if (other.thread == as->index)
        snprintf(by, sizeof by, "other threads");
    else
        snprintf(by, sizeof by, "thread %u", other.thread);
    n += size_t(snprintf(text + n, sizeof text - n, "%s", by));
    if (other.place) {
        n += size_t(snprintf(text + n, sizeof text - n, " at "));
        n += place_mark(text + n, sizeof text - n, other.place);
    }
    fail_site(site, text);
}

inline void touch(Cell &cell, const Site &site, const Fiber *as, Access access, bool shared) {
    Trace &w = cell.write, &r = cell.read;
    if (w.flags & IN_FLIGHT && w.block_epoch >= first_epoch) {
        char text[96];
        snprintf(text, sizeof text, "%s of shared memory with a cp.async in flight",
                 access == READ ? "read" : access == WRITE ? "write" : "atomic update");
        fail_site(site, text);
    }
    if (shared) {
        if (access != WRITE && w.block_epoch < first_epoch)
            fail_site(site, access == READ
                                ? "read of shared memory that nobody wrote in this block"
                                : "atomic on shared memory that nobody wrote in this block");
    } else {
        const bool both_atomic = access == ATOMIC && w.flags & ATOMICALLY;
        if (!both_atomic &&
            (w.flags & BY_EARLIER_BLOCK || (w.block_epoch && w.block_epoch < first_epoch)))
            fail_race(site, as, access, w, false, shared);
        if (access != READ &&
            (r.flags & BY_EARLIER_BLOCK || (r.block_epoch && r.block_epoch < first_epoch)))
            fail_race(site, as, access, r, true, shared);
    }
    if (!ordered(w, as) && !(access == ATOMIC && w.flags & ATOMICALLY))
        fail_race(site, as, access, w, false, shared);
    if (access != READ && !ordered(r, as)) fail_race(site, as, access, r, true, shared);

    if (access == READ)
        add(r, as, site.place(), 0);
    else if (access == ATOMIC && w.flags & ATOMICALLY)
        add(w, as, site.place(), ATOMICALLY);
    else
        w = {epoch, warp_epochs[as->warp], site.place(), u16(as->index), ONE,
             u8(access == ATOMIC ? ATOMICALLY : 0)};
}

// The bytes of one access mostly have one history: what came of the first then holds for all.
void touch_all(Cell *cells, size_t bytes, const Site &site, const Fiber *as, Access access,
               bool shared) {
    const Cell before = cells[0];
    touch(cells[0], site, as, access, shared);
    for (size_t i = 1; i < bytes; i++) {
        if (memcmp(&cells[i], &before, sizeof before) == 0)
            cells[i] = cells[0];
        else
            touch(cells[i], site, as, access, shared);
    }
}

Cell *shared_cells(const char *p, size_t bytes) {
    if (p >= run.dynamic_low && p + bytes <= run.dynamic_high)
        return dynamic_cells + (p - run.dynamic_low);
    if (p >= run.tls_low && p + bytes <= run.tls_high) return static_cells + (p - run.tls_low);
    return nullptr;
}

void access_memory(const Site &site, const Fiber *as, const char *p, size_t bytes, Access access) {
    if (!me) return; // asked for its signature, not launched
    if (p >= me->stack_low && p + bytes <= me->stack_high) return;
    if (Cell *cells = shared_cells(p, bytes)) {
        touch_all(cells, bytes, site, as, access, true);
        return;
    }
    const Region *region = last_region;
    if (!region || p < region->low || p + bytes > region->high) {
        region = nullptr;
        for (const Region &candidate : run.regions)
            if (p >= candidate.low && p + bytes <= candidate.high) region = &candidate;
    }
    if (region) {
        last_region = region;
        if (region->shadow) {
            touch_all(region->shadow + (p - region->low), bytes, site, as, access, false);
        } else if (access != READ) {
            char text[96];
            snprintf(text, sizeof text, "write to argument %d, which is const", region->argument);
            fail_site(site, text);
        }
        return;
    }
    if (p >= run.library_low && p + bytes <= run.library_high) {
        if (access == READ) return;
        fail_site(site, "write to a constant of the module");
    }
    const char *what = access == READ ? "read" : access == WRITE ? "write" : "atomic";
    fail_outside(site.where, site.pc, what, p, bytes);
}

} // namespace

void check_begin() {
    last_region = nullptr;
    const size_t size = size_t(run.tls_high - run.tls_low);
    if (size > static_room) {
        if (static_cells) munmap(static_cells, static_room * sizeof(Cell));
        static_cells = new_cells(static_room = size);
    }
    if (!dynamic_cells) dynamic_cells = new_cells(227 * 1024);
    for (Region &region : run.regions)
        if (region.writable) region.shadow = new_cells(size_t(region.high - region.low));
    // The epochs of earlier launches are far enough below: theirs are another block's.
}

void check_end() {
    for (Region &region : run.regions) {
        if (region.shadow) munmap(region.shadow, size_t(region.high - region.low) * sizeof(Cell));
        region.shadow = nullptr;
    }
}

void check_block() {
    first_epoch = ++epoch;
    if (run.guard_count == 0) return;
    // g++ guards shared arrays of __half though there is nothing to construct; the poison means
    // "done" to it. Written, that is, before the block's threads start.
    for (u32 i = 0; i < run.guard_count; i++)
        if (Cell *cell = shared_cells(run.tls_low + run.guards[i], 1))
            cell->write = {epoch, 0, 0, 0, ONE, 0};
    ++epoch;
}
void check_barrier() { ++epoch; }
void check_warp_barrier(u32 warp) { ++warp_epochs[warp]; }

void check_access(Where where, Fiber *as, const void *address, size_t bytes, Access access) {
    access_memory({where, nullptr}, as, static_cast<const char *>(address), bytes, access);
}

void check_in_flight(const void *shared, size_t bytes) {
    Cell *cells = shared_cells(static_cast<const char *>(shared), bytes);
    for (size_t i = 0; i < bytes; i++) cells[i].write.flags |= IN_FLIGHT;
}

// The bytes are written when the wait is over, by the thread that waited.
void check_landed(const void *shared, size_t bytes) {
    Cell *cells = shared_cells(static_cast<const char *>(shared), bytes);
    for (size_t i = 0; i < bytes; i++)
        cells[i].write = {epoch, warp_epochs[me->warp], 0, u16(me->index), ONE, 0};
}

// --- Called by kernels ---------------------------------------------------------------------------

COC_API void coc_atomic_access(void *address, size_t bytes, const char *file, int line) {
    if (reinterpret_cast<uintptr_t>(address) % bytes)
        fail({file, line}, "misaligned address: not a multiple of %zu", bytes);
    access_memory({{file, line}, nullptr}, me, static_cast<const char *>(address), bytes, ATOMIC);
}

#define COC_PLAIN(name, bytes, access)                                                             \
    COC_API void name(void *p) {                                                                   \
        access_memory({{nullptr, 0}, __builtin_return_address(0)}, me, static_cast<char *>(p),     \
                      bytes, access);                                                              \
    }
#define COC_SIZES(prefix, access)                                                                  \
    COC_PLAIN(prefix##1, 1, access)                                                                \
    COC_PLAIN(prefix##2, 2, access)                                                                \
    COC_PLAIN(prefix##4, 4, access)                                                                \
    COC_PLAIN(prefix##8, 8, access)                                                                \
    COC_PLAIN(prefix##16, 16, access)
COC_SIZES(__tsan_read, READ)
COC_SIZES(__tsan_write, WRITE)
COC_SIZES(__tsan_unaligned_read, READ)
COC_SIZES(__tsan_unaligned_write, WRITE)
COC_SIZES(__tsan_volatile_read, READ)
COC_SIZES(__tsan_volatile_write, WRITE)
COC_SIZES(__tsan_unaligned_volatile_read, READ)
COC_SIZES(__tsan_unaligned_volatile_write, WRITE)
COC_SIZES(__tsan_read_write, WRITE)
COC_SIZES(__tsan_unaligned_read_write, WRITE)

COC_API void __tsan_read_range(void *p, size_t bytes) {
    access_memory({{nullptr, 0}, __builtin_return_address(0)}, me, static_cast<char *>(p), bytes,
                  READ);
}
COC_API void __tsan_write_range(void *p, size_t bytes) {
    access_memory({{nullptr, 0}, __builtin_return_address(0)}, me, static_cast<char *>(p), bytes,
                  WRITE);
}
COC_API void *__tsan_memcpy(void *to, const void *from, size_t bytes) {
    const Site site = {{nullptr, 0}, __builtin_return_address(0)};
    access_memory(site, me, static_cast<const char *>(from), bytes, READ);
    access_memory(site, me, static_cast<const char *>(to), bytes, WRITE);
    return memcpy(to, from, bytes);
}
COC_API void *__tsan_memmove(void *to, const void *from, size_t bytes) {
    const Site site = {{nullptr, 0}, __builtin_return_address(0)};
    access_memory(site, me, static_cast<const char *>(from), bytes, READ);
    access_memory(site, me, static_cast<const char *>(to), bytes, WRITE);
    return memmove(to, from, bytes);
}
COC_API void *__tsan_memset(void *to, int value, size_t bytes) {
    access_memory({{nullptr, 0}, __builtin_return_address(0)}, me, static_cast<const char *>(to),
                  bytes, WRITE);
    return memset(to, value, bytes);
}
COC_API void __tsan_init() {}
COC_API void __tsan_func_entry(void *) {}
COC_API void __tsan_func_exit() {}
COC_API void __tsan_vptr_read(void **) {}
COC_API void __tsan_vptr_update(void **, void *) {}

struct SourceLocation {
    const char *file;
    u32 line, column;
    Where where() const { return {file, int(line)}; }
};

struct TypeDescriptor {
    u16 kind, info;
    char name[1];
};

struct TypeMismatch {
    SourceLocation location;
    const TypeDescriptor *type;
    u8 log_alignment, access;
};

COC_API void __ubsan_handle_type_mismatch_v1(const TypeMismatch *data, uintptr_t address) {
    if (!address) fail(data->location.where(), "access through a null pointer");
    fail(data->location.where(), "misaligned address for %s: not a multiple of %lu",
         data->type->name, 1ul << data->log_alignment);
}

struct OutOfBounds {
    SourceLocation location;
    const TypeDescriptor *array, *index;
};

COC_API void __ubsan_handle_out_of_bounds(const OutOfBounds *data, uintptr_t index) {
    fail(data->location.where(), "array index out of bounds: %ld in %s", long(index),
         data->array->name);
}
COC_API void __ubsan_handle_shift_out_of_bounds(const SourceLocation *at, uintptr_t, uintptr_t by) {
    fail(at->where(), "shift by %ld bits", long(by));
}
COC_API void __ubsan_handle_divrem_overflow(const SourceLocation *at, uintptr_t, uintptr_t) {
    fail(at->where(), "integer division by zero, or its overflow");
}
COC_API void __ubsan_handle_add_overflow(const SourceLocation *at, uintptr_t, uintptr_t) {
    fail(at->where(), "overflow of a signed addition");
}
COC_API void __ubsan_handle_sub_overflow(const SourceLocation *at, uintptr_t, uintptr_t) {
    fail(at->where(), "overflow of a signed subtraction");
}
COC_API void __ubsan_handle_mul_overflow(const SourceLocation *at, uintptr_t, uintptr_t) {
    fail(at->where(), "overflow of a signed multiplication");
}
COC_API void __ubsan_handle_negate_overflow(const SourceLocation *at, uintptr_t) {
    fail(at->where(), "overflow of a signed negation");
}
COC_API void __ubsan_handle_builtin_unreachable(const SourceLocation *at) {
    fail(at->where(), "unreachable code was reached");
}
COC_API void __ubsan_handle_missing_return(const SourceLocation *at) {
    fail(at->where(), "a function that returns a value ended without one");
}
