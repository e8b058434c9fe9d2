// What the parts of the runtime share. One OS thread runs everything: plain globals will do.
#pragma once
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <vector>

#define COC_API extern "C" __attribute__((visibility("default")))

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#include "fiber.inc"

struct Where {
    const char *file;
    int line;
};

struct Index {
    unsigned x, y, z;
};

// A cp.async that has been issued and not yet waited for.
struct Copy {
    char *to;
    const char *from;
    u32 bytes, valid, group;
};

enum State : u8 { READY, WARP, BLOCK, DONE };

struct Fiber {
    Context context;
    State state;
    u32 index, warp, lane;
    Index thread;
    char *stack_low, *stack_high;
    // What a thread that waits in WARP or BLOCK asks for. The operands stay on its stack.
    int op;
    u32 mask;
    Where where;
    void *operands;
    int predicate, result;
    u32 group; // of cp.async: the one that is being filled
    std::vector<Copy> copies;
};

// An array argument, or several that overlap, in memory of its own between two guards.
struct Region {
    char *low, *high;  // what the kernel may touch
    char *map, *map_high;
    const char *source;
    int argument;
    bool writable;
    struct Cell *shadow;
};

constexpr u32 WARP_SIZE = 32, MAX_THREADS = 1024, FULL_MASK = 0xffffffffu;

struct Running {
    void (*entry)(void **);
    void **arguments;
    Index grid, block, block_index;
    u32 threads, warps, done;
    u64 seed, random;
    bool truncate; // how tensor cores round their sums
    const char *library_low, *library_high, *code_low, *code_high;
    char *tls_low, *tls_high;         // all static shared variables of the module
    const u32 *guards; // offsets there of the compiler's own marks that a variable is initialised
    u32 guard_count;
    char *dynamic_low, *dynamic_high; // dynamic shared memory, as asked for
    std::vector<Region> regions;
};

extern Running run;
extern Fiber *me;
extern Fiber *fibers;

// --- sched.cpp

bool prepare_fibers(u32 threads);
void run_block();
void wait_as(State state);
void wake(Fiber *fiber);
void describe(const Fiber &fiber, char *text, size_t size);

// --- warp.cpp

enum Op {
    OP_SYNCTHREADS,
    OP_SYNCWARP,
    OP_SHFL,
    OP_VOTE,
    OP_MATCH,
    OP_REDUCE,
    OP_LDMATRIX,
    OP_MMA,
};
const char *op_name(const Fiber &fiber);

// --- memory.cpp

[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Where where, const char *format, ...);
// With the address of the instruction that did it, or of the one after.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail_at(const void *pc, const char *format,
                                                                ...);
size_t place_mark(char *text, size_t size, u32 offset);
bool in_shared(const void *low, size_t bytes);
[[noreturn]] void fail_outside(Where where, const void *pc, const char *what, const char *address,
                               size_t bytes);

// --- check.cpp

enum Access { READ, WRITE, ATOMIC };
#ifdef COC_CHECK
void check_begin();
void check_end();
void check_block();
void check_barrier();
void check_warp_barrier(u32 warp);
void check_access(Where where, Fiber *as, const void *address, size_t bytes, Access access);
void check_in_flight(const void *shared, size_t bytes);
void check_landed(const void *shared, size_t bytes);
#else
inline void check_begin() {}
inline void check_end() {}
inline void check_block() {}
inline void check_barrier() {}
inline void check_warp_barrier(u32) {}
inline void check_access(Where, Fiber *, const void *, size_t, Access) {}
inline void check_in_flight(const void *, size_t) {}
inline void check_landed(const void *, size_t) {}
#endif
