/* A wall clock ahead of the machine's: LD_PRELOAD=.../wallclock.so WALLCLOCK_FILE=/folder/offset
 *
 * The file holds one little-endian int64, seconds to add to CLOCK_REALTIME. It is mapped, so that a new value is
 * seen at once by every process that has it; write it in place. Every other clock is left alone. Calls that wait
 * until a wall-clock time get it back in the machine's time; more than 1e9 s can only be a wall-clock time.
 * gcc -O2 -shared -fPIC -o wallclock.so wallclock.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t zero, *offset = &zero;
static long (*real_syscall)(long, ...);

static void *next(const char *name, const char *version) {
    void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    return found ? found : dlsym(RTLD_NEXT, name);
}
#define REAL(name, version) ({ static __typeof__(name) *f; if (!f) f = next(#name, version); f; })

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WALLCLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = REAL(clock_gettime, NULL)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) now->tv_sec += *offset;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = REAL(gettimeofday, NULL)(now, zone);
    if (!failed) now->tv_sec += *offset;
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return out ? (*out = now.tv_sec) : now.tv_sec;
}
int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}

static const struct timespec *machine(const struct timespec *until, struct timespec *room) {
    if (!until || until->tv_sec < 1000000000) return until;
    *room = *until;
    room->tv_sec -= *offset;
    return room;
}
#define M(until) machine(until, &(struct timespec){0})

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *t) {
    return REAL(pthread_cond_timedwait, "GLIBC_2.3.2")(c, m, M(t));
}
int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t k, const struct timespec *t) {
    return REAL(pthread_cond_clockwait, NULL)(c, m, k, M(t));
}
int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *t) { return REAL(pthread_mutex_timedlock, NULL)(m, M(t)); }
int pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t k, const struct timespec *t) {
    return REAL(pthread_mutex_clocklock, NULL)(m, k, M(t));
}
int pthread_rwlock_timedrdlock(pthread_rwlock_t *l, const struct timespec *t) { return REAL(pthread_rwlock_timedrdlock, NULL)(l, M(t)); }
int pthread_rwlock_timedwrlock(pthread_rwlock_t *l, const struct timespec *t) { return REAL(pthread_rwlock_timedwrlock, NULL)(l, M(t)); }
int sem_timedwait(sem_t *s, const struct timespec *t) { return REAL(sem_timedwait, NULL)(s, M(t)); }
int sem_clockwait(sem_t *s, clockid_t k, const struct timespec *t) { return REAL(sem_clockwait, NULL)(s, k, M(t)); }
int clock_nanosleep(clockid_t k, int flags, const struct timespec *t, struct timespec *left) {
    return REAL(clock_nanosleep, NULL)(k, flags, flags & TIMER_ABSTIME ? M(t) : t, left);
}

/* Ray's and gRPC's locks (Abseil) call the kernel's futex by themselves. */
long syscall(long number, ...) {
    va_list list;
    long a[6];
    struct timespec room;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (!real_syscall) real_syscall = next("syscall", NULL);
    if (number == SYS_clock_gettime) return clock_gettime((clockid_t)a[0], (struct timespec *)a[1]);
    if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) a[3] = (long)machine((const struct timespec *)a[3], &room);
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
