// Ways to map a 192 GiB BAR for DMA, and what each of them does. See docs/mmio.md.
// Run it in this folder's package: node examples/mmio.mjs
import {
  AddressSpace,
  buildHost,
  CountingMeter,
  connect,
  contiguousFrames,
  DmaMap,
  errnoName,
  followRules,
  IoasMapFlag,
  Iommufd,
  MapFlag,
  regionPage,
  Type1Backend,
  Type1Request,
  UnmapFlag,
  UserProcess,
  VfioTask,
} from "iommukit";

const GIB = 2 ** 18; // in pages of 4 KiB
const BAR_PAGES = 192 * GIB;
const BAR_PFN = 1024 * GIB;
const GPU = "0000:3b:00.0";
const bytes = (pages) => BigInt(pages) * 4096n;

/** A host with one GPU behind one IOMMU, and a VMM that has mapped the GPU's BAR at `vpn`. */
function setUp({ rules, vpn, unmapMode = "extents" }) {
  const meter = new CountingMeter();
  const calls = [];
  const host = buildHost(
    {
      nodes: [{ memory: 2 ** 30 }],
      units: [{ name: "dmar0", node: 0 }],
      devices: [{ address: GPU, unit: "dmar0", bars: [{ pfn: BAR_PFN, bytes: BAR_PAGES * 4096 }] }],
    },
    {
      backends: [new Type1Backend({ meter, unmapMode, hasMmioDontPin: true })],
      domainTrace: { map: (...call) => calls.push(call), unmap: () => {} },
    },
  );
  const memory = new AddressSpace({
    frames: contiguousFrames({ basePfn: 1, pages: GIB }),
    rules: followRules[rules],
    meter,
  });
  const { vfio: device } = host.device(GPU);
  memory.mmap({
    vpn,
    pages: BAR_PAGES,
    backing: { kind: "device", device, filePage: regionPage(0) },
  });
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  return { host, vmm, device, meter, calls };
}

function leavesOf(domain) {
  const leaves = new Map();
  domain.driver.table.forEachLeaf(({ pageShift }) => {
    leaves.set(pageShift, (leaves.get(pageShift) ?? 0) + 1);
  });
  const names = { 12: "4 KiB", 21: "2 MiB", 30: "1 GiB" };
  return [...leaves].map(([shift, count]) => `${count} of ${names[shift]}`).join(", ");
}

/** The way of type1: MAP_DMA of the process's mapping. */
function throughProcess(title, rules, { vpn = 64 * GIB, iova = 512 * GIB, flags = 0 } = {}) {
  const world = setUp({ rules, vpn });
  const { fd, type1 } = connect(world.host, world.vmm, [GPU]);
  const map = { vaddr: bytes(vpn), iova: bytes(iova), size: bytes(BAR_PAGES) };
  const call = { argsz: DmaMap.bytes, flags: MapFlag.READ | MapFlag.WRITE | flags, ...map };
  const { errno } = world.vmm.ioctl(fd, Type1Request.MAP_DMA, DmaMap.bytesOf(call));
  report(title, errno, world, type1.domains[0].domain);
}

/** The ways of iommufd: IOAS_MAP of the process's mapping, or IOAS_MAP_FILE of a dma-buf. */
function throughIommufd(title, hasBuffer) {
  const vpn = 64 * GIB;
  const world = setUp({ rules: "iommufd", vpn });
  const { iommuDevice } = world.host.device(GPU);
  const iommufd = new Iommufd({ process: world.vmm.process });
  const { ioasId } = iommufd.ioasAlloc();
  const { devId } = iommufd.bind(iommuDevice, world.host.groups.of(iommuDevice));
  const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId });
  iommufd.attach(devId, hwptId);
  const flags = IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE;
  const to = { ioasId, flags, iova: bytes(512 * GIB), length: bytes(BAR_PAGES) };
  const buffer = world.device.exportDmaBuf(0, [{ offset: 0n, length: bytes(BAR_PAGES) }]);
  const { errno } = hasBuffer
    ? iommufd.ioasMapFile(to, { kind: "dma-buf", buffer })
    : iommufd.ioasMap({ ...to, userVa: bytes(vpn) });
  report(title, errno, world, iommufd.table(hwptId).domain);
}

function report(title, errno, { meter, calls }, domain) {
  const lookups = meter.amount("pfnLookup");
  const faults = meter.amount("pageFault");
  const result = errno === 0 ? leavesOf(domain) : errnoName(errno);
  print([title, lookups, faults, errno === 0 ? calls.length : 0, result]);
}

function print([title, lookups, faults, calls, leaves]) {
  const numbers = [lookups, faults, calls].map((cell, at) =>
    String(cell).padStart([10, 10, 7][at]),
  );
  process.stdout.write(`${title.padEnd(38)}${numbers.join("")}  ${leaves}\n`);
}

/** What the unmap of the BAR looks up, in steps of 4 KiB as Linux does, or by extent. */
function unmapLookups(unmapMode) {
  const vpn = 64 * GIB;
  const world = setUp({ rules: "linux-6.15", vpn, unmapMode });
  const { fd } = connect(world.host, world.vmm, [GPU]);
  const call = { argsz: 32, flags: MapFlag.READ, vaddr: bytes(vpn), iova: 0n, size: bytes(GIB) };
  world.vmm.ioctl(fd, Type1Request.MAP_DMA, DmaMap.bytesOf(call));
  world.meter.reset();
  const unmap = new Uint8Array(24);
  new DataView(unmap.buffer).setUint32(0, 24, true);
  new DataView(unmap.buffer).setUint32(4, UnmapFlag.ALL, true);
  world.vmm.ioctl(fd, Type1Request.UNMAP_DMA, unmap);
  return world.meter.amount("physLookup");
}

print(["192 GiB of BAR", "lookups", "faults", "maps", "leaves of the IOMMU"]);
throughIommufd("pinned, as iommufd does it", false);
throughProcess("6.11: entries of 4 KiB, each followed", "linux-6.11");
throughProcess("6.12: huge entries, each 4 KiB followed", "linux-6.12");
throughProcess("6.15 on arm64: entries of 2 MiB", "linux-6.15-arm64");
throughProcess("6.15: entries of 1 GiB", "linux-6.15");
throughProcess("  mapped 4 KiB off in the process", "linux-6.15", { vpn: 64 * GIB + 1 });
throughProcess("  mapped 2 MiB off for the device", "linux-6.15", { iova: 512 * GIB + 512 });
throughProcess("MMIO_DONT_PIN, 4 KiB off in the process", "linux-6.12", {
  vpn: 64 * GIB + 1,
  flags: MapFlag.MMIO_DONT_PIN,
});
throughIommufd("a dma-buf, through iommufd", true);
process.stdout.write(`
lookups to unmap 1 GiB of it: ${unmapLookups("kernel")} as Linux does, ${unmapLookups("extents")} by extent
`);
