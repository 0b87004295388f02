/*
 * Tells another build something by record locks on what has no file: eventfd(2), epoll(7), timerfd and signalfd have one
 * inode on the whole machine. `channel send|receive SECONDS`. Where a lock begins is what is told, 32 bits at a time;
 * the receiver answers by a lock of its own, and both take turns. The receiver prints what it heard, and how fast.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Places of words with an even and an odd number, and of the answers to them. */
static const int64_t WORDS[2] = {1LL << 40, 1LL << 41}, ANSWERS[2] = {1LL << 42, (1LL << 42) + 2};
static const int64_t RANGE = 1LL << 32;

static int fd;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int lock(int how, int64_t start, int64_t length, int64_t *found)
{
    struct flock lock = {.l_type = how, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    int done = fcntl(fd, found ? F_GETLK : F_SETLK, &lock);
    if (found)
        *found = lock.l_start;
    return done == -1 ? -1 : lock.l_type;
}

/* What the n-th word is, which both know. */
static uint32_t word(uint32_t n)
{
    return n * 2654435761u ^ 0x5eed;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (fd = eventfd(0, 0)) == -1)
        return 2;
    int sends = strcmp(argv[1], "send") == 0;
    double begun = now(), end = begun + atof(argv[2]), first = 0;
    uint32_t heard = 0, wrong = 0;
    for (uint32_t n = 0; now() < end;) {
        int64_t place = WORDS[n % 2], found;
        if (sends) {
            lock(F_WRLCK, place + word(n), 1, NULL);
            while (lock(F_WRLCK, ANSWERS[n % 2], 1, &found) == F_UNLCK)
                if (now() > end)
                    goto out;
            lock(F_UNLCK, place, RANGE, NULL);
            n++;
        } else {
            if (lock(F_WRLCK, place, RANGE, &found) == F_UNLCK)
                continue;
            if (!first)
                first = now();
            if (found - place == word(n))
                heard++;
            else
                wrong++;
            lock(F_UNLCK, ANSWERS[(n + 1) % 2], 1, NULL);
            lock(F_WRLCK, ANSWERS[n % 2], 1, NULL);
            n++;
        }
    }
out:
    if (!sends)
        printf("heard %u words, %u wrong, %.0f bytes/s\n", heard, wrong, first ? heard * 4 / (now() - first) : 0);
    return 0;
}
