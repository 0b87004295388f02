/* What a build may have kept of the one who made its sandbox. */
#include "probe.h"

#include <sys/resource.h>

/* Whether this process is in the namespace that the variable names, as readlink(2) of /proc/self/ns tells it. */
static int shares(const char *kind, const char *variable)
{
    char path[64], name[64];
    const char *outside = getenv(variable);
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    ssize_t length = readlink(path, name, sizeof name - 1);
    if (length == -1 || !outside)
        return not_tried(path);
    name[length] = 0;
    return strcmp(name, outside) == 0 ? SUCCEEDED : REFUSED;
}

static int cgroup_namespace(void)
{
    return shares("cgroup", "OUTSIDE_CGROUP_NS");
}
static int network_namespace(void)
{
    return shares("net", "OUTSIDE_NET_NS");
}
static int pid_namespace(void)
{
    return shares("pid", "OUTSIDE_PID_NS");
}
static int user_namespace(void)
{
    return shares("user", "OUTSIDE_USER_NS");
}

static int time_namespace(void)
{
    return shares("time", "OUTSIDE_TIME_NS");
}
static int time_namespace_of_children(void)
{
    return shares("time_for_children", "OUTSIDE_TIME_NS");
}

static int host_name(void)
{
    char name[256] = "";
    const char *outside = getenv("OUTSIDE_HOST");
    if (gethostname(name, sizeof name - 1) == -1 || !outside)
        return not_tried("gethostname");
    return strcmp(name, outside) == 0 ? SUCCEEDED : REFUSED;
}

/* A session whose leader is in no pid namespace that we see has the number 0. */
static int session(void)
{
    const char *outside = getenv("OUTSIDE_SESSION");
    pid_t mine = getsid(0);
    if (mine == -1 || !outside)
        return not_tried("getsid");
    return mine == 0 || mine == atoi(outside) ? SUCCEEDED : REFUSED;
}

/* A build that does not get SIGPIPE or SIGTERM cannot be ended by them. */
static int signals(void)
{
    struct sigaction pipe;
    sigset_t blocked;
    if (sigaction(SIGPIPE, NULL, &pipe) == -1 || sigprocmask(SIG_SETMASK, NULL, &blocked) == -1)
        return not_tried("sigaction");
    return pipe.sa_handler == SIG_IGN || sigismember(&blocked, SIGTERM) ? SUCCEEDED : REFUSED;
}

/* A limit of one byte is what keeps a core dump from a program of the host that takes it by a pipe. */
static int core_dumps(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) == -1)
        return not_tried("getrlimit");
    return limit.rlim_cur <= 1 && limit.rlim_max <= 1 ? REFUSED : SUCCEEDED;
}

/* What is in the bounding set could come back by a program. */
static int bounding_set(void)
{
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1)
            return SUCCEEDED;
    errno = 0;
    return REFUSED;
}

static int identity(void)
{
    return getuid() == 1000 && geteuid() == 1000 && getgid() == 1000 && getgroups(0, NULL) == 0 ? REFUSED : SUCCEEDED;
}

const struct probe PROBES[] = {
    {"shares-cgroup-namespace", cgroup_namespace},
    {"shares-network-namespace", network_namespace},
    {"shares-pid-namespace", pid_namespace},
    {"shares-user-namespace", user_namespace},
    {"shares-time-namespace", time_namespace},
    {"shares-time-namespace-of-children", time_namespace_of_children},
    {"host-name", host_name},
    {"session-of-outside", session},
    {"signals-of-outside", signals},
    {"core-dumps", core_dumps},
    {"bounding-set", bounding_set},
    {"identity-of-outside", identity},
    {NULL, NULL},
};
