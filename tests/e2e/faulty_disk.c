// Preloaded into a member: system calls on some of its files fail, or wait first, as a control file says at each call.
//
// FAULTY_DISK names the control file. It holds lines of: CALL ERRNO MILLISECONDS PART. A CALL (write, sync or read) on a
// file whose path contains PART waits for so long and then, unless ERRNO is 0, fails with that.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int path_contains(int fd, const char *part) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

// Whether the call is to fail; errno is set then.
static int faulty(const char *call, int fd) {
    const char *control = getenv("FAULTY_DISK");
    if (control == NULL) return 0;
    int before = errno;
    char text[1024];
    int file = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        errno = before;
        return 0;
    }
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[length < 0 ? 0 : length] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char name[16], part[256];
        int error;
        long milliseconds;
        if (sscanf(line, "%15s %d %ld %255s", name, &error, &milliseconds, part) != 4) continue;
        if (strcmp(name, call) != 0 || !path_contains(fd, part)) continue;
        struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&wait, NULL);
        if (error != 0) {
            errno = error;
            return 1;
        }
    }
    errno = before;
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
    return faulty("write", fd) ? -1 : REAL(write)(fd, bytes, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return faulty("write", fd) ? -1 : REAL(pwrite)(fd, bytes, count, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return faulty("write", fd) ? -1 : REAL(pwrite64)(fd, bytes, count, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return faulty("write", fd) ? -1 : REAL(writev)(fd, parts, count);
}
ssize_t read(int fd, void *bytes, size_t count) {
    return faulty("read", fd) ? -1 : REAL(read)(fd, bytes, count);
}
ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    return faulty("read", fd) ? -1 : REAL(pread)(fd, bytes, count, offset);
}
ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    return faulty("read", fd) ? -1 : REAL(pread64)(fd, bytes, count, offset);
}
int fsync(int fd) { return faulty("sync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return faulty("sync", fd) ? -1 : REAL(fdatasync)(fd); }
