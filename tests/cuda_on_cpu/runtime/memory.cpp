// Memory between guards, faults as messages, and the launch itself.
#include "runtime.h"

#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

// Wide guards, so that a stride of a row or two still ends in one: they cost addresses only.
constexpr size_t GUARD = 1 << 20;
constexpr size_t MAX_DYNAMIC = 227 * 1024;

char message[2048];
sigjmp_buf launcher;
pid_t launching_thread;
char *dynamic_map; // GUARD, MAX_DYNAMIC rounded up, GUARD
size_t page;

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void finish_message(size_t length, bool in_thread) {
    if (!in_thread || !me) return;
    snprintf(message + length, sizeof message - length, " [block %u,%u,%u thread %u,%u,%u]",
             run.block_index.x, run.block_index.y, run.block_index.z, me->thread.x, me->thread.y,
             me->thread.z);
}

size_t clamp(int length) {
    return length < 0 ? 0 : size_t(length) < sizeof message ? size_t(length) : sizeof message - 1;
}

[[noreturn]] void leave() { siglongjmp(launcher, 1); }

// Python turns the mark into a file and a line.
size_t put_place(const void *pc) {
    const char *p = static_cast<const char *>(pc);
    if (p < run.library_low || p >= run.library_high) return 0;
    const size_t n = place_mark(message, sizeof message, u32(p - run.library_low));
    return n + clamp(snprintf(message + n, sizeof message - n, ": "));
}

} // namespace

size_t place_mark(char *text, size_t size, u32 offset) {
    return clamp(snprintf(text, size, "\x01%x\x02", offset));
}

void fail(Where where, const char *format, ...) {
    size_t n = 0;
    if (where.file) n = clamp(snprintf(message, sizeof message, "%s:%d: ", where.file, where.line));
    va_list list;
    va_start(list, format);
    n += clamp(vsnprintf(message + n, sizeof message - n, format, list));
    va_end(list);
    finish_message(n, true);
    leave();
}

void fail_at(const void *pc, const char *format, ...) {
    size_t n = put_place(pc);
    va_list list;
    va_start(list, format);
    n += clamp(vsnprintf(message + n, sizeof message - n, format, list));
    va_end(list);
    finish_message(n, true);
    leave();
}

bool in_shared(const void *low, size_t bytes) {
    const char *p = static_cast<const char *>(low);
    return (p >= run.tls_low && p + bytes <= run.tls_high) ||
           (p >= run.dynamic_low && p + bytes <= run.dynamic_high);
}

// With 0 bytes the size of the access is not known. The nearest of what the kernel may touch is
// named, if it is near.
void fail_outside(Where where, const void *pc, const char *what, const char *address,
                  size_t bytes) {
    char access[64], place[160];
    if (bytes)
        snprintf(access, sizeof access, "%zu-byte %s", bytes, what);
    else
        snprintf(access, sizeof access, "%s", what);
    snprintf(place, sizeof place, "of memory that is neither an argument nor shared");
    long nearest = long(GUARD);
    const auto consider = [&](const char *low, const char *high, const char *name) {
        const long before_start = low - address, past_end = address - high;
        if (before_start > 0 && before_start < nearest) {
            nearest = before_start;
            snprintf(place, sizeof place, "%ld bytes before the start of %s", before_start, name);
        } else if (past_end >= 0 && past_end < nearest) {
            nearest = past_end;
            snprintf(place, sizeof place, "%ld bytes past the end of %s of %zu bytes", past_end,
                     name, size_t(high - low));
        } else if (before_start <= 0 && past_end < 0) {
            nearest = 0;
            snprintf(place, sizeof place, "across the end of %s of %zu bytes", name,
                     size_t(high - low));
        }
    };
    for (const Region &region : run.regions) {
        char name[32];
        snprintf(name, sizeof name, "argument %d", region.argument);
        consider(region.low, region.high, name);
    }
    consider(run.dynamic_low, run.dynamic_high, "the dynamic shared memory");
    if (address < reinterpret_cast<char *>(4096))
        snprintf(place, sizeof place, "through a null pointer");
    if (where.file) fail(where, "%s %s", access, place);
    fail_at(pc, "%s %s", access, place);
}

namespace {

// --- Faults --------------------------------------------------------------------------------------

// The alarm is a signal that nobody else is likely to use, as test runners do SIGALRM.
const int ALARM = SIGRTMIN + 3;
const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, ALARM};
constexpr int SIGNAL_COUNT = sizeof SIGNALS / sizeof *SIGNALS;
struct sigaction before[SIGNAL_COUNT];

// In the runtime or a library of C: the innermost address of the kernel that the stack holds.
const char *caller_in_library(uintptr_t sp) {
    if (!me || sp < uintptr_t(me->stack_low) || sp >= uintptr_t(me->stack_high)) return nullptr;
    for (const char *const *p = reinterpret_cast<const char *const *>(sp & ~uintptr_t(7));
         p < reinterpret_cast<const char *const *>(me->stack_high); p++)
        if (*p >= run.code_low && *p < run.code_high) return *p;
    return nullptr;
}

void on_signal(int signal, siginfo_t *info, void *context) {
    if (pid_t(syscall(SYS_gettid)) != launching_thread) {
        // Another thread's fault is none of ours: it happens again under the earlier handler.
        for (int i = 0; i < SIGNAL_COUNT; i++)
            if (SIGNALS[i] == signal) sigaction(signal, &before[i], nullptr);
        return;
    }
    const ucontext_t *at = static_cast<ucontext_t *>(context);
    const char *what = "access";
#if defined(__x86_64__)
    const char *pc = reinterpret_cast<const char *>(at->uc_mcontext.gregs[REG_RIP]);
    const uintptr_t sp = uintptr_t(at->uc_mcontext.gregs[REG_RSP]);
    if (signal == SIGSEGV) what = at->uc_mcontext.gregs[REG_ERR] & 2 ? "write" : "read";
#elif defined(__aarch64__)
    const char *pc = reinterpret_cast<const char *>(at->uc_mcontext.pc);
    const uintptr_t sp = at->uc_mcontext.sp;
#else
    const char *pc = nullptr;
    const uintptr_t sp = 0;
    (void)at;
#endif
    // Places are looked up one byte back, as for return addresses.
    if (pc >= run.library_low && pc < run.library_high)
        pc++;
    else
        pc = caller_in_library(sp);
    const Where where = pc || !me ? Where{nullptr, 0} : me->where;
    const char *address = static_cast<const char *>(info->si_addr);
    if (signal == ALARM) {
        const char *text = "still running after the time limit: an endless loop?";
        if (pc) fail_at(pc, "%s", text);
        fail(where, "%s", text);
    }
    if (signal == SIGFPE) fail_at(pc, "integer division by zero");
    if (signal == SIGILL) fail_at(pc, "unreachable code was reached");
    if (me && address < me->stack_low && address >= me->stack_low - page)
        fail_at(pc, "stack overflow: local arrays or recursion beyond %zu KB",
                size_t(me->stack_high - me->stack_low) / 1024);
    fail_outside(where, pc, what, address, 0);
}

struct Handlers {
    stack_t old_stack;
    timer_t timer;
    bool timed = false;

    explicit Handlers(double seconds) {
        static char stack[64 * 1024];
        launching_thread = pid_t(syscall(SYS_gettid));
        stack_t ours = {};
        ours.ss_sp = stack, ours.ss_size = sizeof stack;
        sigaltstack(&ours, &old_stack);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &action, &before[i]);
        // Time of this thread only: neither a busy machine nor other threads can trip it, and the
        // signal comes to the thread that launches, whichever it is.
        sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = ALARM;
#ifdef sigev_notify_thread_id
        event.sigev_notify_thread_id = launching_thread;
#else
        event._sigev_un._tid = launching_thread;
#endif
        if (seconds > 0 && timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0) {
            timed = true;
            itimerspec limit = {};
            limit.it_value.tv_sec = time_t(seconds);
            limit.it_value.tv_nsec = long((seconds - double(time_t(seconds))) * 1e9);
            timer_settime(timer, 0, &limit, nullptr);
        }
    }
    ~Handlers() {
        if (timed) timer_delete(timer);
        for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &before[i], nullptr);
        sigaltstack(&old_stack, nullptr);
    }
};

// --- The module's own memory ---------------------------------------------------------------------

int find_library(dl_phdr_info *info, size_t, void *data) {
    const uintptr_t inside = reinterpret_cast<uintptr_t>(data);
    bool ours = false;
    uintptr_t high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto &segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        const uintptr_t low = info->dlpi_addr + segment.p_vaddr;
        ours = ours || (inside >= low && inside < low + segment.p_memsz);
        high = low + segment.p_memsz > high ? low + segment.p_memsz : high;
        if (inside >= low && inside < low + segment.p_memsz) {
            run.code_low = reinterpret_cast<const char *>(low);
            run.code_high = run.code_low + segment.p_memsz;
        }
    }
    if (!ours) return 0;
    run.library_low = reinterpret_cast<const char *>(info->dlpi_addr);
    run.library_high = reinterpret_cast<const char *>(high);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
        run.tls_low = static_cast<char *>(info->dlpi_tls_data);
        run.tls_high = run.tls_low + info->dlpi_phdr[i].p_memsz;
    }
    return 1;
}

// --- Arguments -----------------------------------------------------------------------------------

enum { SCALAR, READ_ONLY, WRITABLE };

struct Argument {
    void *data;
    u64 bytes;
    u64 kind;
};

void map_region(Region &region, size_t bytes, bool left) {
    const size_t room = round_up(bytes, page);
    char *map = static_cast<char *>(mmap(nullptr, room + 2 * GUARD, PROT_NONE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map == MAP_FAILED) fail({nullptr, 0}, "out of memory for argument %d", region.argument);
    region.map = map, region.map_high = map + room + 2 * GUARD;
    char *inside = map + GUARD;
    if (room && mprotect(inside, room, PROT_READ | PROT_WRITE) != 0)
        fail({nullptr, 0}, "out of memory for argument %d", region.argument);
    // As aligned as it was, up to 16 bytes, the widest access there is.
    const size_t phase = reinterpret_cast<uintptr_t>(region.source) % 16;
    if (left) {
        region.low = inside + (bytes + phase <= room ? phase : 0);
    } else {
        const size_t start = room - bytes;
        region.low = inside + (start >= phase ? (start - phase) / 16 * 16 + phase : start);
    }
    region.high = region.low + bytes;
    memset(inside, 0xff, size_t(region.low - inside));
    memset(region.high, 0xff, size_t(inside + room - region.high));
    if (bytes) memcpy(region.low, region.source, bytes);
}

void map_arguments(Argument *arguments, size_t count, bool left, void **pointers, void **slots) {
    run.regions.clear();
    run.regions.reserve(count);
    for (size_t i = 0; i < count; i++) {
        const Argument &a = arguments[i];
        if (a.kind == SCALAR) continue;
        const char *low = static_cast<const char *>(a.data);
        Region region = {};
        region.source = low, region.argument = int(i), region.writable = a.kind == WRITABLE;
        region.high = const_cast<char *>(low + a.bytes);
        // Arguments that overlap share memory, as they do on a device.
        for (size_t j = 0; j < run.regions.size();) {
            Region &other = run.regions[j];
            if (region.source < other.high && other.source < region.high) {
                region.source = region.source < other.source ? region.source : other.source;
                region.high = region.high > other.high ? region.high : other.high;
                region.writable = region.writable || other.writable;
                region.argument = other.argument;
                other = run.regions.back();
                run.regions.pop_back();
                j = 0;
            } else {
                j++;
            }
        }
        run.regions.push_back(region);
    }
    for (Region &region : run.regions) region.low = const_cast<char *>(region.source);
    for (size_t i = 0; i < count; i++) {
        slots[i] = arguments[i].data;
        if (arguments[i].kind != SCALAR) slots[i] = &pointers[i];
    }
    std::vector<Region> sources = run.regions;
    for (Region &region : run.regions)
        map_region(region, size_t(region.high - region.low), left);
    for (size_t i = 0; i < count; i++) {
        if (arguments[i].kind == SCALAR) continue;
        const char *data = static_cast<const char *>(arguments[i].data);
        for (size_t j = 0; j < sources.size(); j++) {
            const size_t bytes = arguments[i].bytes;
            const bool inside = data >= sources[j].low && data + bytes <= sources[j].high;
            if (bytes ? inside : run.regions[j].argument == int(i))
                pointers[i] = run.regions[j].low + (data - sources[j].low);
        }
    }
}

void check_canaries() {
    for (const Region &region : run.regions) {
        for (const char *p = region.map + GUARD; p < region.low; p++)
            if (*p != char(0xff))
                fail({nullptr, 0}, "a write %zu bytes before the start of argument %d",
                     size_t(region.low - p), region.argument);
        for (const char *p = region.high; p < region.map_high - GUARD; p++)
            if (*p != char(0xff))
                fail({nullptr, 0}, "a write %zu bytes past the end of argument %d",
                     size_t(p - region.high), region.argument);
    }
}

void copy_back() {
    for (const Region &region : run.regions)
        if (region.writable && region.high > region.low)
            memcpy(const_cast<char *>(region.source), region.low,
                   size_t(region.high - region.low));
}

void unmap() {
    for (const Region &region : run.regions)
        if (region.map) munmap(region.map, size_t(region.map_high - region.map));
    run.regions.clear();
}

void map_dynamic(size_t bytes) {
    const size_t most = round_up(MAX_DYNAMIC, page);
    if (!dynamic_map) {
        void *map = mmap(nullptr, most + 2 * GUARD, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) fail({nullptr, 0}, "out of memory for shared memory");
        dynamic_map = static_cast<char *>(map);
    }
    char *end = dynamic_map + GUARD + most;
    const size_t open = round_up(bytes, page);
    mprotect(dynamic_map + GUARD, most, PROT_NONE);
    if (open) mprotect(end - open, open, PROT_READ | PROT_WRITE);
    // Ends at the guard, but for what 16-byte alignment leaves.
    run.dynamic_low = end - round_up(bytes, 16);
    run.dynamic_high = run.dynamic_low + bytes;
}

u64 mix(u64 x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// Blocks go upwards for seed 0, downwards for 1, in a random order for others.
void run_grid() {
    const u64 count = u64(run.grid.x) * run.grid.y * run.grid.z;
    std::vector<u32> order;
    if (run.seed > 1) {
        order.resize(count);
        for (u64 i = 0; i < count; i++) order[i] = u32(i);
        u64 state = run.seed;
        for (u64 i = count; i > 1; i--) {
            const u64 j = (state = mix(state)) % i;
            const u32 swapped = order[i - 1];
            order[i - 1] = order[j], order[j] = swapped;
        }
    }
    for (u64 k = 0; k < count; k++) {
        const u64 i = run.seed == 0 ? k : run.seed == 1 ? count - 1 - k : order[k];
        run.block_index = {u32(i % run.grid.x), u32(i / run.grid.x % run.grid.y),
                           u32(i / (u64(run.grid.x) * run.grid.y))};
        // NaN in every floating-point format, -1 in integers.
        memset(run.tls_low, 0xff, size_t(run.tls_high - run.tls_low));
        memset(run.dynamic_low, 0xff, size_t(run.dynamic_high - run.dynamic_low));
        check_block();
        run_block();
    }
}

struct Launch {
    void (*entry)(void **);
    void *(*touch)();
    Argument *arguments;
    u64 argument_count;
    u32 grid[3], block[3];
    u64 dynamic_bytes, seed;
    u32 flush_left, truncate;
    const u32 *guards;
    u64 guard_count;
    double seconds;
};

} // namespace

COC_API const char *coc_message() { return message; }

COC_API int coc_launch(const Launch *launch) {
    page = size_t(sysconf(_SC_PAGESIZE));
    run.entry = launch->entry;
    run.grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    run.block = {launch->block[0], launch->block[1], launch->block[2]};
    run.threads = run.block.x * run.block.y * run.block.z;
    run.warps = (run.threads + WARP_SIZE - 1) / WARP_SIZE;
    run.seed = launch->seed;
    run.random = mix(launch->seed) | 1;
    run.truncate = launch->truncate != 0;
    run.guards = launch->guards;
    run.guard_count = u32(launch->guard_count);
    message[0] = 0;
    me = nullptr;

    // Their destructors must run, so they live outside of what siglongjmp leaves.
    std::vector<void *> pointers(launch->argument_count), slots(launch->argument_count);
    run.arguments = slots.data();
    Handlers handlers(launch->seconds);
    volatile int failed = 1;
    if (sigsetjmp(launcher, 1) == 0) {
        if (!prepare_fibers(run.threads)) fail({nullptr, 0}, "out of memory for stacks");
        launch->touch();
        if (!dl_iterate_phdr(find_library, reinterpret_cast<void *>(launch->entry)))
            fail({nullptr, 0}, "the module was not found among the loaded libraries");
        map_dynamic(launch->dynamic_bytes);
        map_arguments(launch->arguments, launch->argument_count, launch->flush_left != 0,
                      pointers.data(), slots.data());
        check_begin();
        run_grid();
        check_canaries();
        copy_back();
        failed = 0;
    }
    me = nullptr;
    check_end();
    unmap();
    return failed;
}
