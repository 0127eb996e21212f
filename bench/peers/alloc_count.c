/* Counts what a program asks of the C library's allocator, whatever language it is written in.
 *
 * Preloaded into it (LD_PRELOAD), counts every call of malloc, calloc, realloc, memalign and their kin that
 * hands out a block, and the bytes asked for. The counts lie in a file that is mapped by both sides, named by
 * ALLOC_COUNT_FILE: two unsigned 64-bit numbers, blocks and bytes, which bench/peers/alloc.py reads while the
 * program runs. The calls themselves go on to the allocator behind (dlsym RTLD_NEXT).
 *
 *     cc -O2 -shared -fPIC -o alloc_count.so alloc_count.c -ldl -pthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct counts {
    _Atomic uint64_t blocks;
    _Atomic uint64_t bytes;
};

/* Until the file is mapped, and without one. */
static struct counts unmapped;
static struct counts *counts = &unmapped;

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static void *(*next_memalign)(size_t, size_t);
static void (*next_free)(void *);

/* dlsym allocates before it has found the allocator: those few blocks come from here and are never freed. */
static char early[64 << 10] __attribute__((aligned(16)));
static size_t early_len;

static void *early_block(size_t len) {
    size_t begin = (early_len + 15) & ~(size_t)15;
    if (len > sizeof early || begin > sizeof early - len) {
        errno = ENOMEM;
        return NULL;
    }
    early_len = begin + len;
    return early + begin;
}

static int is_early(const void *block) {
    return (const char *)block >= early && (const char *)block < early + sizeof early;
}

static void find(void) {
    static _Atomic int looking;
    if (next_malloc != NULL || looking++ > 0) {
        return;
    }
    next_calloc = dlsym(RTLD_NEXT, "calloc");
    next_realloc = dlsym(RTLD_NEXT, "realloc");
    next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    next_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    next_memalign = dlsym(RTLD_NEXT, "memalign");
    next_free = dlsym(RTLD_NEXT, "free");
    next_malloc = dlsym(RTLD_NEXT, "malloc");
}

__attribute__((constructor)) static void map_counts(void) {
    find();
    const char *path = getenv("ALLOC_COUNT_FILE");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    void *map = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) {
        counts = map;
    }
}

static void *counted(void *block, size_t len) {
    if (block != NULL) {
        counts->blocks += 1;
        counts->bytes += len;
    }
    return block;
}

void *malloc(size_t len) {
    find();
    return counted(next_malloc != NULL ? next_malloc(len) : early_block(len), len);
}

void *calloc(size_t count, size_t len) {
    find();
    if (next_malloc == NULL) {
        size_t all;
        /* Fresh, so it is all zeros. */
        return __builtin_mul_overflow(count, len, &all) ? NULL : counted(early_block(all), all);
    }
    return counted(next_calloc(count, len), count * len);
}

void *realloc(void *block, size_t len) {
    find();
    if (next_malloc == NULL || is_early(block)) {
        void *moved = malloc(len);
        if (moved != NULL && block != NULL) {
            size_t left = (size_t)(early + sizeof early - (char *)block);
            memcpy(moved, block, len < left ? len : left);
        }
        return moved;
    }
    return counted(next_realloc(block, len), len);
}

int posix_memalign(void **block, size_t align, size_t len) {
    find();
    int error = next_posix_memalign(block, align, len);
    if (error == 0) {
        counted(*block, len);
    }
    return error;
}

void *aligned_alloc(size_t align, size_t len) {
    find();
    return counted(next_aligned_alloc(align, len), len);
}

void *memalign(size_t align, size_t len) {
    find();
    return counted(next_memalign(align, len), len);
}

void free(void *block) {
    find();
    if (block != NULL && !is_early(block)) {
        next_free(block);
    }
}
