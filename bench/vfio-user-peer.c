/*
 * The other end of bench/vfio-user.bench.ts: a client that takes times, and a server that only
 * echoes, which shows what the sockets alone cost.
 *
 *   peer rtt PATH N WINDOW    N REGION_READs of 4 bytes, WINDOW of them outstanding
 *   peer echo PATH            answers REGION_READs until the client goes
 *
 * rtt prints the median, the 99th percentile and the maximum of the times of a window, in ns.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct header { uint16_t id, command; uint32_t size, flags, error; };
struct access { struct header head; uint64_t offset; uint32_t region, count; };
struct answer { struct access access; uint8_t data[4]; } __attribute__((packed));

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void take(int fd, void *to, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = read(fd, (char *)to + done, bytes - done);
		if (n <= 0)
			exit(3);
		done += n;
	}
}

static void give(int fd, const void *from, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = write(fd, (const char *)from + done, bytes - done);
		if (n <= 0)
			exit(4);
		done += n;
	}
}

static int open_socket(const char *path, int is_server)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (!is_server) {
		for (int try = 0; try < 1000; try++) {
			if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
				return fd;
			usleep(1000);
		}
		exit(2);
	}
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
		exit(2);
	return accept(fd, NULL, NULL);
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void rtt(int fd, long count, long window)
{
	struct { struct header head; uint16_t major, minor; } version = { { 1, 1, 20, 0, 0 }, 0, 0 };
	char reply[4096];
	struct access *asked = calloc(window, sizeof(*asked));
	struct answer *answers = calloc(window, sizeof(*answers));
	long rounds = count / window;
	int64_t *times = calloc(rounds, sizeof(*times));

	give(fd, &version, sizeof(version));
	take(fd, reply, sizeof(struct header));
	take(fd, reply, ((struct header *)reply)->size - sizeof(struct header));
	for (long i = 0; i < window; i++)
		asked[i] = (struct access){ { i, 9, 32, 0, 0 }, 0, 7, 4 };
	for (long round = 0; round < rounds; round++) {
		int64_t start = now();
		give(fd, asked, window * sizeof(*asked));
		take(fd, answers, window * sizeof(*answers));
		times[round] = now() - start;
		if (answers[window - 1].access.head.flags != 1)
			exit(5);
	}
	qsort(times, rounds, sizeof(*times), by_size);
	printf("%ld %ld %ld\n", (long)times[rounds / 2], (long)times[rounds * 99 / 100],
	       (long)times[rounds - 1]);
}

static void echo(int fd)
{
	struct access asked[256];
	struct answer answers[256];
	size_t held = 0;

	for (;;) {
		struct pollfd wait = { fd, POLLIN, 0 };
		poll(&wait, 1, -1);
		ssize_t n = read(fd, (char *)asked + held, sizeof(asked) - held);
		if (n <= 0)
			return;
		held += n;
		size_t whole = 0, out = 0;
		for (; held - whole >= 16; out++) {
			struct access *each = (struct access *)((char *)asked + whole);
			if (each->head.size > held - whole)
				break;
			whole += each->head.size;
			memcpy(&answers[out], each, sizeof(*each));
			answers[out].access.head.flags = 1;
			answers[out].access.head.size = sizeof(struct answer);
		}
		give(fd, answers, out * sizeof(struct answer));
		memmove(asked, (char *)asked + whole, held - whole);
		held -= whole;
	}
}

int main(int argc, char **argv)
{
	if (argc >= 3 && strcmp(argv[1], "echo") == 0)
		echo(open_socket(argv[2], 1));
	else if (argc == 5)
		rtt(open_socket(argv[2], 0), atol(argv[3]), atol(argv[4]));
	else
		return 1;
	return 0;
}
