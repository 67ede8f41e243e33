/*
 * The other end of bench/vfio-user.bench.ts: a client that takes times, and a server that only
 * echoes, which shows what the sockets alone cost.
 *
 *   peer rtt PATH N WINDOW    N REGION_READs of 4 bytes, WINDOW of them outstanding
 *   peer echo PATH            answers REGION_READs until the client goes
 *   peer sync PATH N message  N times: a doorbell by a posted write, then wait until the device
 *                             has counted in shared memory
 *   peer sync PATH N page     the same, the doorbell being a store to a page that is mapped
 *   peer iommu PATH N message|page  N times: a MAP, then an UNMAP of a page, each by a kick of a
 *                             virtio-iommu, as Linux does in strict mode; its times until the used
 *                             index moves
 *
 * rtt, sync and iommu print the median, the 99th percentile and the maximum of the times, in ns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static void negotiate(int fd)
{
	struct { struct header head; uint16_t major, minor; } version = { { 1, 1, 20, 0, 0 }, 0, 0 };
	char reply[4096];

	give(fd, &version, sizeof(version));
	take(fd, reply, sizeof(struct header));
	take(fd, reply, ((struct header *)reply)->size - sizeof(struct header));
}

static void print(int64_t *times, long count)
{
	qsort(times, count, sizeof(*times), by_size);
	printf("%ld %ld %ld\n", (long)times[count / 2], (long)times[count * 99 / 100],
	       (long)times[count - 1]);
}

/* Sends or takes one message with room for one descriptor. */
static int with_descriptor(int fd, void *bytes, size_t count, int sent)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	struct iovec vector = { bytes, count };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.room,
				  .msg_controllen = sizeof(control.room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	int found = -1;

	if (sent >= 0) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &sent, sizeof(int));
		if (sendmsg(fd, &message, 0) != (ssize_t)count)
			exit(4);
		return -1;
	}
	if (recvmsg(fd, &message, 0) != (ssize_t)count)
		exit(3);
	c = CMSG_FIRSTHDR(&message);
	if (c != NULL)
		memcpy(&found, CMSG_DATA(c), sizeof(int));
	return found;
}

static void doorbells(int fd, long count, int is_page)
{
	struct { struct header head; uint32_t argsz, flags; uint64_t offset, address, size; } map = {
		{ 2, 2, 48, 0, 0 }, 32, 3, 0, 0, 4096 };
	struct { struct header head; uint32_t argsz, flags, index, cap; uint64_t size, offset; } info = {
		{ 3, 5, 48, 0, 0 }, 32, 0, 2, 0, 0, 0 };
	struct { struct access access; uint16_t value; } __attribute__((packed)) kick = {
		{ { 4, 10, 34, 16, 0 }, 0, 2, 2 }, 0 };
	char reply[48];
	int ram = memfd_create("ram", MFD_ALLOW_SEALING);
	volatile uint16_t *counter, *page = NULL;
	int64_t *times = calloc(count, sizeof(*times));

	negotiate(fd);
	if (ftruncate(ram, 4096))
		exit(6);
	counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	with_descriptor(fd, &map, sizeof(map), ram);
	take(fd, reply, 16);
	give(fd, &info, sizeof(info));
	int shared = with_descriptor(fd, reply, 48, -1);
	if (is_page)
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	for (long round = 0; round < count; round++) {
		uint16_t before = *counter;
		int64_t start = now();
		if (is_page)
			*page = 0;
		else
			give(fd, &kick, sizeof(kick));
		while (*counter == before)
			;
		times[round] = now() - start;
	}
	print(times, count);
}

enum { RAM = 1 << 20, DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, REQUEST = 0x4000 };

/* A write to a register that is answered. */
static void poke(int fd, uint32_t region, uint64_t offset, uint32_t bytes, uint64_t value)
{
	struct { struct access access; uint64_t value; } __attribute__((packed)) out = {
		{ { 5, 10, 32 + bytes, 0, 0 }, offset, region, bytes }, value };
	struct access reply;

	give(fd, &out, 32 + bytes);
	take(fd, &reply, sizeof(reply));
	if (reply.head.error != 0)
		exit(7);
}

/* A driver of a virtio-iommu with one queue, as little of it as there can be. */
static void iommu(int fd, long count, int is_page)
{
	struct { struct header head; uint32_t argsz, flags; uint64_t offset, address, size; } map = {
		{ 2, 2, 48, 0, 0 }, 32, 3, 0, 0, RAM };
	struct { struct header head; uint32_t argsz, flags, index, cap; uint64_t size, offset; } info = {
		{ 3, 5, 48, 0, 0 }, 32, 0, 2, 0, 0, 0 };
	struct { struct access access; uint16_t value; } __attribute__((packed)) kick = {
		{ { 4, 10, 34, 16, 0 }, 0x3000, 0, 2 }, 0 };
	struct { uint64_t address; uint32_t bytes; uint16_t flags, next; } *desc;
	int ram = memfd_create("ram", MFD_ALLOW_SEALING);
	int64_t *times = calloc(count, sizeof(*times));
	volatile uint16_t *page = NULL;
	char reply[4096];

	negotiate(fd);
	if (ftruncate(ram, RAM))
		exit(6);
	char *memory = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	with_descriptor(fd, &map, sizeof(map), ram);
	take(fd, reply, 16);
	if (is_page) {
		give(fd, &info, sizeof(info));
		int shared = with_descriptor(fd, reply, 48, -1);
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	}
	poke(fd, 7, 4, 2, 6);
	for (int status = 0; status < 3; status++)
		poke(fd, 0, 20, 1, status == 0 ? 0 : status == 1 ? 1 : 3);
	poke(fd, 0, 8, 4, 0);
	poke(fd, 0, 12, 4, 7); /* INPUT_RANGE, DOMAIN_RANGE, MAP_UNMAP */
	poke(fd, 0, 8, 4, 1);
	poke(fd, 0, 12, 4, 1); /* VERSION_1 */
	poke(fd, 0, 20, 1, 11);
	poke(fd, 0, 22, 2, 0);
	poke(fd, 0, 24, 2, 256);
	poke(fd, 0, 26, 2, 0xffff);
	poke(fd, 0, 32, 4, DESC);
	poke(fd, 0, 40, 4, AVAIL);
	poke(fd, 0, 48, 4, USED);
	poke(fd, 0, 28, 2, 1);
	poke(fd, 0, 20, 1, 15);
	desc = (void *)(memory + DESC);
	uint16_t *avail = (uint16_t *)(memory + AVAIL);
	volatile uint16_t *used = (uint16_t *)(memory + USED);
	for (long round = -1; round < count; round++) {
		unsigned char *request = (unsigned char *)memory + REQUEST;
		uint64_t iova = 0x100000000ull + (round / 2 % 4096) * 4096;
		uint32_t domain = 1, endpoint = 32, rights = 3;
		uint64_t last = iova + 4095, target = 0x8000;
		int bytes = round < 0 ? 20 : round % 2 == 0 ? 36 : 28;

		memset(request, 0, 64);
		request[0] = round < 0 ? 1 : round % 2 == 0 ? 3 : 4;
		memcpy(request + 4, &domain, 4);
		if (round < 0) {
			memcpy(request + 8, &endpoint, 4);
		} else {
			memcpy(request + 8, &iova, 8);
			memcpy(request + 16, &last, 8);
			if (bytes == 36) {
				memcpy(request + 24, &target, 8);
				memcpy(request + 32, &rights, 4);
			}
		}
		request[bytes] = 0xff;
		desc[0].address = REQUEST;
		desc[0].bytes = bytes;
		desc[0].flags = 1;
		desc[0].next = 1;
		desc[1].address = REQUEST + bytes;
		desc[1].bytes = 4;
		desc[1].flags = 2;
		int64_t start = now();
		uint16_t next = avail[1] + 1;
		avail[2 + (uint16_t)(next - 1) % 256] = 0;
		__atomic_store_n(&avail[1], next, __ATOMIC_SEQ_CST);
		if (is_page)
			*page = 0;
		else
			give(fd, &kick, sizeof(kick));
		while (used[1] != next)
			;
		if (round >= 0)
			times[round] = now() - start;
		if (request[bytes] != 0)
			exit(8);
	}
	print(times, count);
}

static void rtt(int fd, long count, long window)
{
	struct access *asked = calloc(window, sizeof(*asked));
	struct answer *answers = calloc(window, sizeof(*answers));
	long rounds = count / window;
	int64_t *times = calloc(rounds, sizeof(*times));

	negotiate(fd);
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
	print(times, rounds);
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
	else if (argc == 5 && strcmp(argv[1], "sync") == 0)
		doorbells(open_socket(argv[2], 0), atol(argv[3]), strcmp(argv[4], "page") == 0);
	else if (argc == 5 && strcmp(argv[1], "iommu") == 0)
		iommu(open_socket(argv[2], 0), atol(argv[3]), strcmp(argv[4], "page") == 0);
	else if (argc == 5)
		rtt(open_socket(argv[2], 0), atol(argv[3]), atol(argv[4]));
	else
		return 1;
	return 0;
}
