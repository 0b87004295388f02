/* Stays behind its step, and stops the process of the next one before it has become a program; then takes its stack
 * from it and lets it go on ("take"), or leaves it as it is ("leave"). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Whether a process still has the name that init has from the spawner, once it has stopped. */
static int is_no_program(int pid)
{
    char path[64], text[256];
    for (;;) {
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        int file = open(path, O_RDONLY);
        ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
        if (file >= 0)
            close(file);
        if (length <= 0)
            return 0;
        text[length] = 0;
        char *state = strrchr(text, ')');
        if (state && state[2] == 'T')
            return strstr(text, "(belljar") != NULL;
        if (!state || state[2] == 'Z')
            return 0;
    }
}

int main(int count, char **words)
{
    int take = count > 1 && !strcmp(words[1], "take");
    if (fork())
        return 0;
    setsid();
    int own = getpid();
    struct rlimit none = {0, 0};
    for (;;)
        for (int pid = own + 1; pid < own + 40; pid++) {
            if (kill(pid, SIGSTOP))
                continue;
            int reached = is_no_program(pid);
            if (reached && !take)
                return 0;
            if (reached)
                prlimit(pid, RLIMIT_STACK, &none, NULL);
            kill(pid, SIGCONT);
            if (reached)
                return 0;
        }
}
