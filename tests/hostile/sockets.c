/* Reaching out: odd socket families, and services of the host and of neighbours. What to reach is told by the
 * environment. */
#include "probe.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/un.h>

static int made(int family, int type, int protocol)
{
    return judge(socket(family, type | SOCK_CLOEXEC, protocol));
}

static int vsock(void)
{
    return made(AF_VSOCK, SOCK_STREAM, 0);
}

/* The kernel takes 32 bits of the family. */
static int vsock_high_bits(void)
{
    return judge(syscall(SYS_socket, (1UL << 32) | AF_VSOCK, SOCK_STREAM, 0));
}
static int packet(void)
{
    return made(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
}
static int uevents(void)
{
    return made(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
}
static int netfilter(void)
{
    return made(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
}
static int raw(void)
{
    return made(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}
static int raw6(void)
{
    return made(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
}
static int mptcp(void)
{
    return made(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */);
}
static int udp_lite(void)
{
    return made(AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE);
}
static int xdp(void)
{
    return made(44 /* AF_XDP */, SOCK_RAW, 0);
}

static int socket_filter(void)
{
    struct sock_filter all = {.code = BPF_RET | BPF_K, .k = 0xffff};
    struct sock_fprog program = {.len = 1, .filter = &all};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return not_tried("socket");
    return judge(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

static int receive_buffer(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), before = 0, after = 0, more;
    socklen_t length = sizeof before;
    if (fd == -1 || getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &before, &length) == -1)
        return not_tried("socket");
    more = before; /* The kernel doubles it. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &more, sizeof more) == -1)
        return REFUSED;
    getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &after, &length);
    errno = 0;
    return after > before ? SUCCEEDED : REFUSED;
}

/* struct in6_flowlabel_req of linux/in6.h, which does not go together with netinet/in.h. */
static int flow_label(void)
{
    struct {
        struct in6_addr to;
        uint32_t label;
        uint8_t action, share;
        uint16_t flags, expires, linger;
        uint32_t pad;
    } get = {.to = IN6ADDR_LOOPBACK_INIT, .share = 1 /* IPV6_FL_S_EXCL */, .flags = 1 /* IPV6_FL_F_CREATE */};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return not_tried("socket");
    return judge(setsockopt(fd, IPPROTO_IPV6, 32 /* IPV6_FLOWLABEL_MGR */, &get, sizeof get));
}

static int tcp_signature(void)
{
    struct tcp_md5sig key = {.tcpm_keylen = 3, .tcpm_key = "key"};
    struct sockaddr_in *peer = (struct sockaddr_in *)&key.tcpm_addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return not_tried("socket");
    peer->sin_family = AF_INET;
    peer->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return judge(setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof key));
}

static int ipsec_port(void)
{
    int esp = 2; /* UDP_ENCAP_ESPINUDP of linux/udp.h */
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return not_tried("socket");
    return judge(setsockopt(fd, IPPROTO_UDP, 100 /* UDP_ENCAP */, &esp, sizeof esp));
}

/* Asks for the version only; a kernel that has bridges as a module loads it for that. */
static int bridge(void)
{
    unsigned long version[3] = {0};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return not_tried("socket");
    return judge(ioctl(fd, 0x8940 /* SIOCGIFBR */, version));
}

static const char *told(const char *name)
{
    return getenv(name);
}

static int tcp_to(int family)
{
    const char *port = told(family == AF_INET ? "OUTSIDE_TCP" : "OUTSIDE_TCP6");
    if (!port)
        return not_tried("no port");
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    six.sin6_addr = in6addr_loopback;
    if (family == AF_INET)
        return judge(connect(fd, (struct sockaddr *)&four, sizeof four));
    return judge(connect(fd, (struct sockaddr *)&six, sizeof six));
}

static int tcp(void)
{
    return tcp_to(AF_INET);
}
static int tcp6(void)
{
    return tcp_to(AF_INET6);
}

/* Something must come back: a datagram alone can always be sent on a loopback. */
static int udp(void)
{
    const char *port = told("OUTSIDE_UDP");
    if (!port)
        return not_tried("no port");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval wait = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    char answer[8];
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == -1 || write(fd, "ping", 4) != 4)
        return REFUSED;
    return judge(read(fd, answer, sizeof answer));
}

static int unix_to(const char *name, bool abstract)
{
    if (!name)
        return not_tried("no name");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(to.sun_path + abstract, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return judge(connect(fd, (struct sockaddr *)&to, size));
}

static int abstract(void)
{
    return unix_to(told("OUTSIDE_ABSTRACT"), true);
}
static int path(void)
{
    return unix_to(told("OUTSIDE_SOCKET"), false);
}

static int host_file(void)
{
    const char *name = told("OUTSIDE_FILE");
    return name ? open_for(name, O_RDONLY) : not_tried("no name");
}

static int host_shm_file(void)
{
    const char *name = told("OUTSIDE_SHM");
    return name ? open_for(name, O_RDONLY) : not_tried("no name");
}

/* The state directory of Belljar itself: objects, keys, sockets. */
static int state(void)
{
    const char *name = told("OUTSIDE_STATE");
    return name ? open_for(name, O_RDONLY | O_DIRECTORY) : not_tried("no name");
}

static int interfaces(void)
{
    /* Loopback is number 1; anything beyond is a way out. */
    if (control) {
        struct if_nameindex *all = if_nameindex();
        for (struct if_nameindex *next = all; next && next->if_index; next++)
            if (strcmp(next->if_name, "lo") != 0)
                return SUCCEEDED;
        return not_tried("the machine has no network");
    }
    struct if_nameindex *all = if_nameindex();
    errno = 0;
    for (struct if_nameindex *next = all; next && next->if_index; next++)
        if (strcmp(next->if_name, "lo") != 0)
            return SUCCEEDED;
    return all ? REFUSED : not_tried("if_nameindex");
}

/* RFC 5737 address for documentation: nothing is sent, only a route is looked up. */
static int route(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return judge(connect(fd, (struct sockaddr *)&to, sizeof to));
}

const struct probe PROBES[] = {
    {"socket-vsock", vsock},
    {"socket-vsock-high-bits", vsock_high_bits},
    {"socket-packet", packet},
    {"socket-netlink-uevent", uevents},
    {"socket-netlink-netfilter", netfilter},
    {"socket-raw", raw},
    {"socket-raw6", raw6},
    {"socket-mptcp", mptcp},
    {"socket-udp-lite", udp_lite},
    {"socket-xdp", xdp},
    {"socket-filter", socket_filter},
    {"receive-buffer", receive_buffer},
    {"flow-label", flow_label},
    {"tcp-signature", tcp_signature},
    {"ipsec-port", ipsec_port},
    {"bridge-module", bridge},
    {"tcp-host-loopback", tcp},
    {"tcp6-host-loopback", tcp6},
    {"udp-host-loopback", udp},
    {"unix-abstract-host", abstract},
    {"unix-path-host", path},
    {"file-of-host", host_file},
    {"dev-shm-of-host", host_shm_file},
    {"state-directory", state},
    {"network-interfaces", interfaces},
    {"route-out", route},
    {NULL, NULL},
};
