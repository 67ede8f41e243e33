/*
 * Records what VFIO type1 of a running kernel answers, as JSON lines for `iommukit verify`.
 *
 *     cc -static -O2 -o vfio-record vfio-record.c
 *     vfio-record type1 GROUP [--seed N] [--ops N] [--type 1|3] [--memlock PAGES] > recording.jsonl
 *     vfio-record map-time GROUP DEVICE BAR [--largest MIB] > recording.jsonl
 *
 * GROUP is the number of an IOMMU group whose devices are all bound to vfio-pci; no device is opened
 * by `type1`, and nothing but memory of this program is ever mapped. The calls are pseudo-random:
 * the same seed gives the same calls wherever the allowed ranges are the same. `--memlock` makes the
 * calls as an unprivileged user whose RLIMIT_MEMLOCK is that many pages.
 *
 * `map-time` maps growing parts of a device's BAR and of anonymous memory. Beside it, the map events
 * (tracing/events/iommu/map) of the same time are what `verify` compares them with.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ULL
#define INFO_BYTES 4096
#define RANGES_MAX 32
#define BITMAP_BYTES 512

static uint64_t state;

/* xorshift64* */
static uint32_t below(uint32_t limit)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 2685821657736338717ULL) >> 33) % limit;
}

static int one_in(uint32_t n) { return below(n) == 0; }

static void die(const char *what)
{
	fprintf(stderr, "vfio-record: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int call(int fd, unsigned long request, void *argument)
{
	return ioctl(fd, request, argument) < 0 ? errno : 0;
}

/* Regions of this program's memory that calls name. */

struct region {
	const char *name;
	const char *sort; /* how `verify` rebuilds it: a letter for each page */
	uint64_t pages;
	char *at;
};

/* r, w, n, x: readable, read-write, no rights, nothing mapped. One letter alone holds for all. */
static struct region regions[] = {
	{ "buf", "w", 256, NULL },
	{ "ro", "r", 16, NULL },
	{ "hole", "x", 16, NULL },
	{ "torn", "wwwwxwwwrrrrwwww", 16, NULL },
	{ "shared", "w", 16, NULL },
	{ "none", "n", 16, NULL },
};
#define REGIONS (sizeof(regions) / sizeof(regions[0]))

static void make_region(struct region *region)
{
	size_t bytes = region->pages * PAGE;
	/* Nobody may touch what lies beside a region: a call past its end must not depend on it. */
	char *space = mmap(NULL, bytes + 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (space == MAP_FAILED)
		die("mmap");
	region->at = space + 32 * PAGE;
	int flags = MAP_ANONYMOUS | MAP_FIXED | (strcmp(region->name, "shared") ? MAP_PRIVATE : MAP_SHARED);
	if (mmap(region->at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		die("mmap");
	memset(region->at, 0x5a, bytes);
	for (uint64_t page = 0; page < region->pages; page++) {
		char sort = region->sort[1] ? region->sort[page] : region->sort[0];
		char *at = region->at + page * PAGE;
		if (sort == 'x')
			munmap(at, PAGE);
		else
			mprotect(at, PAGE, sort == 'w' ? PROT_READ | PROT_WRITE : sort == 'r' ? PROT_READ : PROT_NONE);
	}
}

/* GET_INFO */

static uint64_t range_first[RANGES_MAX], range_last[RANGES_MAX];
static unsigned range_count;

static void print_capability(const uint8_t *info, uint32_t at)
{
	const struct vfio_info_cap_header *head = (const void *)(info + at);
	printf("{\"id\":%u,\"version\":%u", head->id, head->version);
	if (head->id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION) {
		const struct vfio_iommu_type1_info_cap_migration *cap = (const void *)head;
		printf(",\"pgsize_bitmap\":\"0x%llx\",\"max_dirty\":\"0x%llx\"", cap->pgsize_bitmap,
		       cap->max_dirty_bitmap_size);
	} else if (head->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
		const struct vfio_iommu_type1_info_dma_avail *cap = (const void *)head;
		printf(",\"dma_avail\":%u", cap->avail);
	} else if (head->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
		const struct vfio_iommu_type1_info_cap_iova_range *cap = (const void *)head;
		printf(",\"iova_ranges\":[");
		range_count = 0;
		for (uint32_t i = 0; i < cap->nr_iovas; i++) {
			printf("%s[\"0x%llx\",\"0x%llx\"]", i ? "," : "", cap->iova_ranges[i].start,
			       cap->iova_ranges[i].end);
			if (range_count < RANGES_MAX) {
				range_first[range_count] = cap->iova_ranges[i].start;
				range_last[range_count++] = cap->iova_ranges[i].end;
			}
		}
		printf("]");
	}
	printf("}");
}

/* argsz 0: all there is, without a word about the sizes. */
static void get_info(int container, uint32_t argsz)
{
	static uint8_t bytes[INFO_BYTES];
	struct vfio_iommu_type1_info *info = (void *)bytes;
	memset(bytes, 0, sizeof(bytes));
	info->argsz = argsz ? argsz : sizeof(bytes);
	int error = call(container, VFIO_IOMMU_GET_INFO, info);
	printf("{\"op\":\"info\"");
	if (argsz)
		printf(",\"argsz\":%u,\"errno\":%d,\"argsz_after\":%u", argsz, error, info->argsz);
	if (!error) {
		printf(",\"flags\":%u,\"pgsizes\":\"0x%llx\"", info->flags, info->iova_pgsizes);
		if (argsz)
			printf(",\"cap_offset\":%u", info->cap_offset);
		if (info->cap_offset) {
			printf(",\"caps\":[");
			for (uint32_t at = info->cap_offset; at && at < INFO_BYTES - 64;) {
				print_capability(bytes, at);
				at = ((const struct vfio_info_cap_header *)(bytes + at))->next;
				if (at)
					printf(",");
			}
			printf("]");
		}
	}
	printf("}\n");
}

static unsigned dma_avail(int container)
{
	uint8_t bytes[INFO_BYTES] = { 0 };
	struct vfio_iommu_type1_info *info = (void *)bytes;
	info->argsz = sizeof(bytes);
	if (call(container, VFIO_IOMMU_GET_INFO, info))
		die("GET_INFO");
	for (uint32_t at = info->cap_offset; at;) {
		const struct vfio_iommu_type1_info_dma_avail *cap = (const void *)(bytes + at);
		if (cap->header.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
			return cap->avail;
		at = cap->header.next;
	}
	return 0;
}

/* Addresses and sizes that meet each other, and now and then the edges of what is allowed. */

/* Where the last mapping that succeeded begins and ends. */
static uint64_t last_start, last_end;

static uint64_t some_iova(void)
{
	if (one_in(8))
		return one_in(3) ? last_start : last_end;
	if (one_in(12) && range_count) {
		unsigned i = below(range_count);
		uint64_t edge = one_in(2) ? range_first[i] : range_last[i] + 1;
		return edge + PAGE * below(9) - PAGE * 4;
	}
	if (one_in(60))
		return UINT64_MAX - PAGE * (1 + below(8)) + 1;
	if (one_in(80))
		return 1ULL << below(64);
	uint64_t iova = PAGE * below(64);
	return one_in(50) ? iova + below(4096) : iova;
}

static uint64_t some_size(void)
{
	static const uint64_t odd[] = { 0, 0, 1ULL << 63, 0 - PAGE, 1ULL << 32, 1ULL << 31 };
	if (one_in(30))
		return odd[below(6)];
	if (one_in(50))
		return below(0x20000);
	return PAGE * (1 + below(16));
}

static void do_map(int container)
{
	struct region *region = &regions[one_in(4) ? below(REGIONS) : 0];
	uint64_t size = some_size();
	uint64_t room = region->pages * PAGE > size ? region->pages - size / PAGE : 1;
	uint64_t offset = PAGE * below((uint32_t)room);
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map) };
	map.flags = one_in(12) ? below(64) : one_in(8) ? 1 + below(2) : one_in(30) ? 4 : 3;
	if (one_in(50))
		map.argsz = one_in(2) ? 8 : 31;
	if (one_in(60))
		offset += below(4096);
	map.vaddr = (uint64_t)(uintptr_t)region->at + offset;
	map.iova = some_iova();
	map.size = size;
	uint32_t flags = map.flags, argsz = map.argsz;
	int error = call(container, VFIO_IOMMU_MAP_DMA, &map);
	if (!error && !(flags & VFIO_DMA_MAP_FLAG_VADDR)) {
		last_start = map.iova;
		last_end = map.iova + map.size;
	}
	printf("{\"op\":\"map\",\"argsz\":%u,\"flags\":%u,\"region\":\"%s\",\"offset\":\"0x%" PRIx64
	       "\",\"iova\":\"0x%llx\",\"size\":\"0x%llx\",\"errno\":%d}\n",
	       argsz, flags, region->name, offset, map.iova, map.size, error);
}

static void print_bitmap(const uint8_t *bits, size_t bytes)
{
	printf(",\"bitmap\":\"");
	for (size_t i = 0; i < bytes; i++)
		printf("%02x", bits[i]);
	printf("\"");
}

static void do_unmap(int container, int tracking)
{
	static uint8_t bits[BITMAP_BYTES];
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} argument = { .unmap = { .argsz = sizeof(argument.unmap) } };
	struct vfio_iommu_type1_dma_unmap *unmap = &argument.unmap;
	memset(bits, 0, sizeof(bits));
	unmap->iova = some_iova();
	unmap->size = one_in(4) ? PAGE * (1 + below(64)) : some_size();
	unmap->flags = one_in(15) ? below(16) : 0;
	if (one_in(60))
		unmap->argsz = one_in(2) ? 16 : 40;
	int with_bitmap = one_in(tracking ? 6 : 40);
	if (with_bitmap) {
		unmap->argsz = sizeof(argument);
		unmap->flags |= VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
		argument.bitmap.pgsize = one_in(10) ? 0x200000 : PAGE;
		argument.bitmap.size = one_in(10) ? 8 * below(4) : ((unmap->size / PAGE + 63) / 64) * 8;
		if (argument.bitmap.size > BITMAP_BYTES)
			argument.bitmap.size = BITMAP_BYTES;
		argument.bitmap.data = (void *)bits;
	}
	if (one_in(120)) {
		unmap->flags = VFIO_DMA_UNMAP_FLAG_ALL;
		unmap->iova = unmap->size = 0;
	}
	uint64_t iova = unmap->iova, size = unmap->size;
	uint32_t flags = unmap->flags, argsz = unmap->argsz;
	int error = call(container, VFIO_IOMMU_UNMAP_DMA, unmap);
	printf("{\"op\":\"unmap\",\"argsz\":%u,\"flags\":%u,\"iova\":\"0x%" PRIx64 "\",\"size\":\"0x%" PRIx64 "\"",
	       argsz, flags, iova, size);
	if (with_bitmap)
		printf(",\"pgsize\":\"0x%llx\",\"bitmap_size\":\"0x%llx\"", argument.bitmap.pgsize,
		       argument.bitmap.size);
	printf(",\"errno\":%d,\"unmapped\":\"0x%llx\"", error, unmap->size);
	if (with_bitmap && !error)
		print_bitmap(bits, argument.bitmap.size);
	printf("}\n");
}

static int do_dirty(int container, int tracking)
{
	static uint8_t bits[BITMAP_BYTES];
	struct {
		struct vfio_iommu_type1_dirty_bitmap dirty;
		struct vfio_iommu_type1_dirty_bitmap_get get;
	} argument = { .dirty = { .argsz = sizeof(argument) } };
	struct vfio_iommu_type1_dirty_bitmap_get *get = &argument.get;
	memset(bits, 0, sizeof(bits));
	uint32_t flags = tracking && !one_in(4) ? 4 : one_in(6) ? below(8) : 1U << below(3);
	argument.dirty.flags = flags;
	if (one_in(20))
		argument.dirty.argsz = one_in(2) ? 8 : 4;
	get->iova = one_in(8) ? some_iova() : 0;
	get->size = one_in(8) ? some_size() : PAGE * 128;
	get->bitmap.pgsize = one_in(20) ? 0x200000 : PAGE;
	get->bitmap.size = one_in(10) ? 8 * below(4) : ((get->size / PAGE + 63) / 64) * 8;
	if (get->bitmap.size > BITMAP_BYTES)
		get->bitmap.size = BITMAP_BYTES;
	get->bitmap.data = (void *)bits;
	uint32_t argsz = argument.dirty.argsz;
	int error = call(container, VFIO_IOMMU_DIRTY_PAGES, &argument);
	printf("{\"op\":\"dirty\",\"argsz\":%u,\"flags\":%u", argsz, flags);
	if (flags & VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP)
		printf(",\"iova\":\"0x%llx\",\"size\":\"0x%llx\",\"pgsize\":\"0x%llx\",\"bitmap_size\":\"0x%llx\"",
		       get->iova, get->size, get->bitmap.pgsize, get->bitmap.size);
	printf(",\"errno\":%d", error);
	if (!error && flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP)
		print_bitmap(bits, get->bitmap.size);
	printf("}\n");
	if (error)
		return tracking;
	return flags == 1 ? 1 : flags == 2 ? 0 : tracking;
}

static void do_odd(int container)
{
	uint8_t bytes[256] = { 64 };
	unsigned nr = one_in(3) ? 0x64 + below(4) : 0x60 + below(0x40);
	/* What would change the container is left out. */
	if (nr == 0x66 || nr == 0x71 || nr == 0x72 || nr == 0x75 || nr == 0x70 || nr == 0x65)
		nr = 0x80;
	int error = call(container, _IO(VFIO_TYPE, nr), bytes);
	printf("{\"op\":\"ioctl\",\"request\":\"0x%x\",\"errno\":%d}\n", _IO(VFIO_TYPE, nr), error);
}

static int container, group;
/* Before the group was given to the container. */
static struct vfio_group_status status;

static void open_container(const char *number)
{
	char path[64];
	snprintf(path, sizeof(path), "/dev/vfio/%s", number);
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (container < 0)
		die("/dev/vfio/vfio");
	group = open(path, O_RDWR | O_CLOEXEC);
	if (group < 0)
		die(path);
	status.argsz = sizeof(status);
	if (call(group, VFIO_GROUP_GET_STATUS, &status))
		die("GROUP_GET_STATUS");
	if (call(group, VFIO_GROUP_SET_CONTAINER, &container))
		die("SET_CONTAINER");
}

static void limit_memory(long pages)
{
	struct rlimit limit = { (rlim_t)pages * PAGE, (rlim_t)pages * PAGE };
	if (setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(65534) || setuid(65534))
		die("becoming an unprivileged user");
}

static int record_type1(const char *number, uint64_t seed, int ops, int type, long memlock)
{
	for (size_t i = 0; i < REGIONS; i++)
		make_region(&regions[i]);
	state = seed * 0x9e3779b97f4a7c15ULL + 1;
	open_container(number);
	int api = ioctl(container, VFIO_GET_API_VERSION);
	if (ioctl(container, VFIO_SET_IOMMU, type) < 0)
		die("SET_IOMMU");
	int coherent = ioctl(container, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU);
	if (memlock >= 0)
		limit_memory(memlock);
	printf("{\"op\":\"open\",\"seed\":%" PRIu64 ",\"type\":%d,\"memlock\":%lld,\"api\":%d,"
	       "\"group_flags\":%u,\"coherent\":%d,\"regions\":{",
	       seed, type, memlock < 0 ? -1LL : memlock * (long long)PAGE, api, status.flags, coherent);
	for (size_t i = 0; i < REGIONS; i++)
		printf("%s\"%s\":{\"pages\":%" PRIu64 ",\"sort\":\"%s\"}", i ? "," : "", regions[i].name,
		       regions[i].pages, regions[i].sort);
	printf("}}\n");
	get_info(container, 0);
	int tracking = 0;
	for (int i = 0; i < ops; i++) {
		uint32_t sort = below(100);
		if (sort < 50)
			do_map(container);
		else if (sort < 86)
			do_unmap(container, tracking);
		else if (sort < 92)
			tracking = do_dirty(container, tracking);
		else if (sort < 95) {
			int extension = (int)below(13);
			printf("{\"op\":\"check_extension\",\"ext\":%d,\"ret\":%d}\n", extension,
			       ioctl(container, VFIO_CHECK_EXTENSION, extension));
		} else if (sort < 98)
			get_info(container, one_in(3) ? INFO_BYTES : 8 * below(18));
		else
			do_odd(container);
	}
	printf("{\"op\":\"final\",\"dma_avail\":%u}\n", dma_avail(container));
	return 0;
}

/* map-time */

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void time_mapping(const char *kind, int thp, void *memory, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map), .flags = 3 };
	map.vaddr = (uint64_t)(uintptr_t)memory;
	map.iova = 0x1000000000ULL;
	map.size = bytes;
	double start = now();
	int error = call(container, VFIO_IOMMU_MAP_DMA, &map);
	double mapped = now();
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .iova = map.iova, .size = bytes };
	int unmap_error = error ? 0 : call(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
	double unmapped = now();
	printf("{\"kind\":\"%s\"", kind);
	if (thp >= 0)
		printf(",\"thp\":%d", thp);
	printf(",\"size\":\"0x%" PRIx64 "\",\"errno\":%d,\"unmap_errno\":%d,\"unmapped\":\"0x%llx\""
	       ",\"map_s\":%.6f,\"unmap_s\":%.6f}\n",
	       bytes, error, unmap_error, error ? 0 : unmap.size, mapped - start, unmapped - mapped);
	fflush(stdout);
}

static void *aligned_space(uint64_t bytes, uint64_t alignment)
{
	char *space = mmap(NULL, bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		die("mmap");
	uint64_t at = ((uint64_t)(uintptr_t)space + alignment - 1) & ~(alignment - 1);
	return (void *)(uintptr_t)at;
}

static void time_anonymous(int thp, uint64_t largest)
{
	for (uint64_t bytes = 2 << 20; bytes <= largest; bytes *= 4) {
		char *memory = aligned_space(bytes, 2 << 20);
		mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		madvise(memory, bytes, thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		time_mapping("anon", thp, memory, bytes);
		munmap(memory, bytes);
	}
}

static int record_map_time(const char *number, const char *device, uint32_t bar, uint64_t largest)
{
	open_container(number);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		die("SET_IOMMU");
	int fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, device);
	if (fd < 0)
		die(device);
	struct vfio_region_info region = { .argsz = sizeof(region), .index = bar };
	if (call(fd, VFIO_DEVICE_GET_REGION_INFO, &region))
		die("REGION_INFO");
	uint16_t command = 0;
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &config);
	if (pread(fd, &command, 2, (off_t)config.offset + 4) != 2)
		die("config space");
	command |= 2; /* memory decoding: a BAR that is switched off cannot be faulted in */
	if (pwrite(fd, &command, 2, (off_t)config.offset + 4) != 2)
		die("config space");
	printf("{\"bar\":%u,\"size\":\"0x%llx\",\"flags\":%u}\n", bar, region.size, region.flags);
	uint64_t gib = 1 << 30;
	char *at = aligned_space(region.size, gib);
	if (mmap(at, region.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)region.offset) == MAP_FAILED)
		die("mmap of the BAR");
	for (uint64_t bytes = 2 << 20; bytes <= region.size; bytes *= 8)
		time_mapping("bar", -1, at, bytes);
	for (int thp = 0; thp < 2; thp++)
		time_anonymous(thp, largest);
	return 0;
}

static long option(int argc, char **argv, const char *name, long fallback)
{
	for (int i = 0; i + 1 < argc; i++)
		if (!strcmp(argv[i], name))
			return strtol(argv[i + 1], NULL, 0);
	return fallback;
}

int main(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "type1"))
		return record_type1(argv[2], (uint64_t)option(argc, argv, "--seed", 1),
				    (int)option(argc, argv, "--ops", 400),
				    (int)option(argc, argv, "--type", VFIO_TYPE1v2_IOMMU),
				    option(argc, argv, "--memlock", -1));
	if (argc >= 5 && !strcmp(argv[1], "map-time"))
		return record_map_time(argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 0),
				       (uint64_t)option(argc, argv, "--largest", 512) << 20);
	fprintf(stderr, "usage: vfio-record type1 GROUP [--seed N] [--ops N] [--type 1|3] [--memlock PAGES]\n"
			"       vfio-record map-time GROUP DEVICE BAR [--largest MIB]\n");
	return 2;
}
