// The fibers of one block: which runs next, barriers of the block, and what it means when none can.
#define COC_FIBER_ASSEMBLY
#include "runtime.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

Running run;
Fiber *me;
Fiber *fibers;

namespace {

constexpr size_t STACK = 128 * 1024;

Fiber storage[MAX_THREADS];
char *stacks;
Context launcher;
u64 ready[MAX_THREADS / 64];
bool restart; // the next pick starts from the end of the order, not from the running fiber

void set_ready(u32 i) { ready[i / 64] |= u64(1) << (i % 64); }
void clear_ready(u32 i) { ready[i / 64] &= ~(u64(1) << (i % 64)); }

int first_from(u32 start) {
    for (u32 word = start / 64; word < MAX_THREADS / 64; word++) {
        u64 bits = ready[word];
        if (word == start / 64) bits &= ~u64(0) << (start % 64);
        if (bits) return int(word * 64) + __builtin_ctzll(bits);
    }
    return -1;
}

int last_before(int end) {
    for (int word = (end - 1) / 64; end > 0 && word >= 0; word--) {
        u64 bits = ready[word];
        if (word == (end - 1) / 64 && end % 64) bits &= (u64(1) << (end % 64)) - 1;
        if (bits) return word * 64 + 63 - __builtin_clzll(bits);
    }
    return -1;
}

u64 random_bits() {
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    return run.random ^= run.random << 17;
}

// Seed 0 takes the fibers upwards, 1 downwards, others at random. Whatever hides a race in one
// order shows it in another.
Fiber *pick() {
    int next;
    if (run.seed == 0) {
        next = first_from(restart ? 0 : me->index + 1);
        if (next < 0) next = first_from(0);
    } else if (run.seed == 1) {
        next = last_before(restart ? int(MAX_THREADS) : int(me->index));
        if (next < 0) next = last_before(int(MAX_THREADS));
    } else {
        const u32 start = u32((random_bits() >> 32) * run.threads >> 32);
        next = first_from(start);
        if (next < 0) next = first_from(0);
    }
    restart = false;
    return next < 0 ? nullptr : &fibers[next];
}

bool same_place(Where a, Where b) {
    return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

// Nobody can run: either all who are left wait at one barrier, or the kernel is wrong.
void decide() {
    u32 waiting = 0, finished = 0;
    Fiber *first = nullptr;
    for (u32 i = 0; i < run.threads; i++) {
        Fiber &f = fibers[i];
        if (f.state == DONE) finished++;
        if (f.state == WARP) {
            for (u32 lane = 0; lane < WARP_SIZE; lane++) {
                const u32 other = f.warp * WARP_SIZE + lane;
                if (!(f.mask >> lane & 1) || other >= run.threads) continue;
                const Fiber &o = fibers[other];
                if (o.state == WARP && o.op == f.op && o.mask == f.mask) continue;
                char text[256];
                describe(o, text, sizeof text);
                fail(f.where, "%s (mask 0x%08x) waits for lane %u, which %s", op_name(f), f.mask,
                     lane, text);
            }
        }
        if (f.state == BLOCK) {
            waiting++;
            if (!first) first = &f;
            if (!same_place(first->where, f.where) || first->op != f.op)
                fail(f.where, "__syncthreads of thread %u, while thread %u waits at %s:%d", f.index,
                     first->index, first->where.file, first->where.line);
        }
    }
    if (!first) fail({nullptr, 0}, "no thread can run");
    if (finished)
        fail(first->where, "__syncthreads: %u threads wait, %u have returned", waiting, finished);

    int any = 0, all = 1, count = 0;
    for (u32 i = 0; i < run.threads; i++) {
        any |= fibers[i].predicate != 0;
        all &= fibers[i].predicate != 0;
        count += fibers[i].predicate != 0;
    }
    const int results[] = {0, any, all, count};
    check_barrier();
    for (u32 i = 0; i < run.threads; i++) {
        fibers[i].result = results[*static_cast<int *>(fibers[i].operands)];
        wake(&fibers[i]);
    }
    restart = true;
}

void run_other() {
    Fiber *next = pick();
    if (!next) {
        decide();
        next = pick();
    }
    Fiber *self = me;
    if (next == self) return;
    me = next;
    switch_to(self->context, next->context);
}

void fiber_main() {
    run.entry(run.arguments);
    if (!me->copies.empty())
        fail(me->where, "a thread returned with a cp.async in flight that nobody waited for");
    me->state = DONE;
    clear_ready(me->index);
    if (++run.done == run.threads) {
        Context &last = me->context;
        me = nullptr;
        switch_to(last, launcher);
    }
    run_other();
    __builtin_unreachable();
}

} // namespace

bool prepare_fibers(u32 threads) {
    fibers = storage;
    if (!stacks) {
        void *map = mmap(nullptr, STACK * MAX_THREADS, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) return false;
        stacks = static_cast<char *>(map);
    }
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    for (u32 i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        if (!f.stack_low) {
            // The lowest page stays closed, for a stack that overflows.
            char *low = stacks + i * STACK + page;
            if (mprotect(low, STACK - page, PROT_READ | PROT_WRITE) != 0) return false;
            f.stack_low = low, f.stack_high = low + STACK - page;
        }
        f.index = i, f.warp = i / WARP_SIZE, f.lane = i % WARP_SIZE;
        f.thread = {i % run.block.x, i / run.block.x % run.block.y,
                    i / (run.block.x * run.block.y)};
    }
    return true;
}

void run_block() {
    memset(ready, 0, sizeof ready);
    for (u32 i = 0; i < run.threads; i++) {
        Fiber &f = fibers[i];
        f.state = READY, f.where = {nullptr, 0}, f.group = 0;
        f.copies.clear();
        prepare_context(f.context, f.stack_low, f.stack_high, i, fiber_main);
        set_ready(i);
    }
    run.done = 0;
    restart = true;
    me = pick();
    switch_to(launcher, me->context);
}

void wait_as(State state) {
    me->state = state;
    clear_ready(me->index);
    run_other();
}

void wake(Fiber *fiber) {
    fiber->state = READY;
    set_ready(fiber->index);
}

void describe(const Fiber &f, char *text, size_t size) {
    if (f.state == DONE)
        snprintf(text, size, "has returned");
    else if (f.state == READY)
        snprintf(text, size, "has not come");
    else
        snprintf(text, size, "waits in %s at %s:%d (mask 0x%08x)", op_name(f), f.where.file,
                 f.where.line, f.state == BLOCK ? FULL_MASK : f.mask);
}

// --- Called by kernels ---------------------------------------------------------------------------

COC_API Index coc_thread_idx() { return me->thread; }
COC_API Index coc_block_idx() { return run.block_index; }
COC_API Index coc_block_dim() { return run.block; }
COC_API Index coc_grid_dim() { return run.grid; }
COC_API u32 coc_lane() { return me->lane; }
COC_API unsigned char *coc_dynamic_shared() {
    return reinterpret_cast<unsigned char *>(run.dynamic_low);
}

COC_API int coc_syncthreads(int kind, int predicate, const char *file, int line) {
    me->op = OP_SYNCTHREADS, me->where = {file, line};
    me->predicate = predicate, me->operands = &kind;
    wait_as(BLOCK);
    return me->result;
}

COC_API void coc_yield() { run_other(); }

COC_API long long coc_clock() {
    static long long ticks;
    return ticks += 32;
}

COC_API void coc_trap(const char *file, int line) { fail({file, line}, "__trap()"); }
