/* Fails, tears or kills at the n-th call that changes what lies below one folder. Preloaded into a process, where it
   also sees what Rust libraries write; does nothing until `faults_arm`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, FAIL_ONCE = 1, FAIL_ON = 2, KILL_BEFORE = 3, KILL_AFTER = 4, KILL_TORN = 5 };

static char root[4096];
static size_t root_length;
static int mode, error_number, log_descriptor = -1;
static long target;
static atomic_long counter;
static atomic_int fired, armed;

/* folder: absolute. at: the call to act on, counted from 1. log: a descriptor that every call is noted on, or -1. */
void faults_arm(const char *folder, int what, long at, int error, int log) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    mode = what, target = at, error_number = error, log_descriptor = log;
    atomic_store(&counter, 0);
    atomic_store(&fired, 0);
    atomic_store(&armed, 1);
}

long faults_disarm(void) {
    atomic_store(&armed, 0);
    return atomic_load(&counter);
}

int faults_fired(void) { return atomic_load(&fired); }

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}
#define REAL(name) \
    static __typeof__(name) *real_##name; \
    if (!real_##name) real_##name = (__typeof__(name) *)real(#name)

static const char *path_of(int descriptor, char *space) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, space, 4095);
    space[length < 0 ? 0 : length] = 0;
    return space;
}

static const char *joined(int folder, const char *path, char *space) {
    if (path[0] == '/' || folder == AT_FDCWD) return path;
    path_of(folder, space);
    size_t length = strlen(space);
    snprintf(space + length, 4096 - length, "/%s", path);
    return space;
}

/* Returns 0: go on; 1: fail with errno set; 2: do half of it, then die; 3: do it, then die. */
static int act_on(const char *kind, const char *path, const char *from) {
    if (!atomic_load(&armed) || strncmp(path, root, root_length) != 0) return 0;
    if (path[root_length] != 0 && path[root_length] != '/') return 0;
    long number = atomic_fetch_add(&counter, 1) + 1;
    if (log_descriptor >= 0) {
        char line[8600];
        int length = snprintf(line, sizeof line, "%ld %s %s%s%s\n", number, kind, path + root_length,
                              from ? " " : "", from ? from + root_length : "");
        ssize_t (*plain)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))real("write");
        if (plain(log_descriptor, line, length) < 0) abort();
    }
    if (mode == COUNT || number < target || (number > target && mode != FAIL_ON)) return 0;
    atomic_store(&fired, 1);
    if (mode == FAIL_ONCE || mode == FAIL_ON) {
        errno = error_number;
        return 1;
    }
    if (mode == KILL_BEFORE) kill(getpid(), SIGKILL), pause();
    return mode == KILL_TORN ? 2 : 3;
}

static int act(const char *kind, const char *path) { return act_on(kind, path, NULL); }

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define GUARDED(result, kind, path, call) MOVED(result, kind, path, NULL, call)
#define MOVED(result, kind, path, from, call) \
    int todo = act_on(kind, path, from); \
    if (todo == 1) return -1; \
    if (todo == 2) die(); \
    result = call; \
    if (todo == 3) die(); \
    return result

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (!WRITES(flags)) return real_##name(path, flags, bits); \
        int done; \
        GUARDED(done, "open", path, real_##name(path, flags, bits)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (!WRITES(flags)) return real_##name(folder, path, flags, bits); \
        char space[4096]; \
        int done; \
        GUARDED(done, "open", joined(folder, path, space), real_##name(folder, path, flags, bits)); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *bytes, size_t size) {
    REAL(write);
    if (!atomic_load(&armed)) return real_write(descriptor, bytes, size);
    char space[4096];
    int todo = act("write", path_of(descriptor, space));
    if (todo == 1) return -1;
    ssize_t done = real_write(descriptor, bytes, todo == 2 ? size / 2 : size);
    if (todo) die();
    return done;
}

#define PWRITE(name) \
    ssize_t name(int descriptor, const void *bytes, size_t size, off_t offset) { \
        REAL(name); \
        if (!atomic_load(&armed)) return real_##name(descriptor, bytes, size, offset); \
        char space[4096]; \
        int todo = act("write", path_of(descriptor, space)); \
        if (todo == 1) return -1; \
        ssize_t done = real_##name(descriptor, bytes, todo == 2 ? size / 2 : size, offset); \
        if (todo) die(); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev);
    if (!atomic_load(&armed)) return real_writev(descriptor, parts, count);
    char space[4096];
    ssize_t done;
    GUARDED(done, "write", path_of(descriptor, space), real_writev(descriptor, parts, count));
}

#define ON_DESCRIPTOR(name, kind) \
    int name(int descriptor) { \
        REAL(name); \
        if (!atomic_load(&armed)) return real_##name(descriptor); \
        char space[4096]; \
        int done; \
        GUARDED(done, kind, path_of(descriptor, space), real_##name(descriptor)); \
    }
ON_DESCRIPTOR(fsync, "fsync")
ON_DESCRIPTOR(fdatasync, "fsync")

#define TRUNCATE(name) \
    int name(int descriptor, off_t size) { \
        REAL(name); \
        if (!atomic_load(&armed)) return real_##name(descriptor, size); \
        char space[4096]; \
        int done; \
        GUARDED(done, "truncate", path_of(descriptor, space), real_##name(descriptor, size)); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int rename(const char *from, const char *to) {
    REAL(rename);
    int done;
    MOVED(done, "rename", to, from, real_rename(from, to));
}

int renameat(int old_folder, const char *from, int folder, const char *to) {
    REAL(renameat);
    char space[4096], source[4096];
    int done;
    MOVED(done, "rename", joined(folder, to, space), joined(old_folder, from, source),
          real_renameat(old_folder, from, folder, to));
}

int renameat2(int old_folder, const char *from, int folder, const char *to, unsigned flags) {
    REAL(renameat2);
    char space[4096], source[4096];
    int done;
    MOVED(done, "rename", joined(folder, to, space), joined(old_folder, from, source),
          real_renameat2(old_folder, from, folder, to, flags));
}

int link(const char *from, const char *to) {
    REAL(link);
    int done;
    MOVED(done, "link", to, from, real_link(from, to));
}

int linkat(int old_folder, const char *from, int folder, const char *to, int flags) {
    REAL(linkat);
    char space[4096], source[4096];
    int done;
    MOVED(done, "link", joined(folder, to, space), joined(old_folder, from, source),
          real_linkat(old_folder, from, folder, to, flags));
}

int mkdir(const char *path, mode_t bits) {
    REAL(mkdir);
    int done;
    GUARDED(done, "mkdir", path, real_mkdir(path, bits));
}

int mkdirat(int folder, const char *path, mode_t bits) {
    REAL(mkdirat);
    char space[4096];
    int done;
    GUARDED(done, "mkdir", joined(folder, path, space), real_mkdirat(folder, path, bits));
}

/* Removing is no write: a full disk allows it. A kill may still come then. */
#define REMOVAL_TODO(path) (mode >= KILL_BEFORE || mode == COUNT ? act("remove", path) : 0)

int unlink(const char *path) {
    REAL(unlink);
    int todo = REMOVAL_TODO(path);
    int done = real_unlink(path);
    if (todo) die();
    return done;
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    char space[4096];
    int todo = REMOVAL_TODO(joined(folder, path, space));
    int done = real_unlinkat(folder, path, flags);
    if (todo) die();
    return done;
}

int rmdir(const char *path) {
    REAL(rmdir);
    int todo = REMOVAL_TODO(path);
    int done = real_rmdir(path);
    if (todo) die();
    return done;
}
