// The same device on the road of Linux 7.2: the kernel hands page requests to the VMM through a
// fault object of iommufd, and the VMM maps what it likes and answers. See docs/io-page-faults.md.
import {
  AddressSpace,
  contiguousFrames,
  FaultingHost,
  HwptFlag,
  IoasMapFlag,
  Iommufd,
  PageResponse,
  UserProcess,
} from "iommukit";

const VPN = 2 ** 24;
const RAM = 2 ** 18; // frame of the guest's first page
const PAGES = 2 ** 18;
const CHUNK = 16; // pages that the VMM maps at a fault
const DEVICE = "0000:75:00.0";
const bytes = (pages) => BigInt(pages) * 4096n;

const host = new FaultingHost({
  nodes: [{ memory: 64 * 2 ** 20 }],
  units: [{ name: "dmar0", node: 0 }],
  devices: [{ address: DEVICE, unit: "dmar0" }],
});
const memory = new AddressSpace({ frames: contiguousFrames({ basePfn: 2 ** 23, pages: PAGES }) });
memory.mmap({ vpn: VPN, pages: PAGES, backing: { kind: "anonymous", isHuge: false } });
const vmm = new UserProcess({ memory });

const iommufd = new Iommufd({ process: vmm });
const { iommuDevice } = host.host.device(DEVICE);
const { devId } = iommufd.bind(iommuDevice, host.host.groups.of(iommuDevice));
const { ioasId } = iommufd.ioasAlloc();
const { faultId } = iommufd.faultQueueAlloc();
const flags = HwptFlag.FAULT_ID_VALID;
const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId, flags, faultId });
host.enableFaults(DEVICE); // what the driver does for a table with a fault object
iommufd.attach(devId, hwptId);

/** The VMM's side: reads a fault, maps a chunk around it unless it is a hole, answers. */
function serve(fault) {
  for (let records = fault.next(64); records !== null; records = fault.next(64)) {
    let code = PageResponse.SUCCESS;
    for (const { addr } of records) {
      const page = Number(addr / bytes(1)) - RAM;
      const first = page - (page % CHUNK);
      const errno = iommufd.ioasMap({
        ioasId,
        flags: IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE,
        iova: bytes(RAM + first),
        userVa: bytes(VPN + first),
        length: bytes(CHUNK),
      }).errno;
      if (errno !== 0) code = PageResponse.INVALID;
    }
    fault.respond(records[0].cookie, code);
  }
}

const fault = iommufd.fault(faultId);
let reads = 0;
host.start(DEVICE, [{ iovaPfn: RAM + 100, pages: 1000, access: 3 }]);
while (host.isBusy(DEVICE)) {
  host.settle();
  if (fault.isReadable) reads += 1;
  serve(fault);
}
const { done, failed } = host.counts(DEVICE);
process.stdout.write(
  `${done} pages reached, ${failed} refused, ${reads} faults served by the VMM\n`,
);
process.stdout.write(`pinned and charged: ${iommufd.caller.user.lockedPages} pages\n`);
host.start(DEVICE, [{ iovaPfn: RAM + PAGES + 5, pages: 1, access: 3 }]);
host.settle();
serve(fault);
host.settle();
process.stdout.write(`beyond the guest's memory: ${host.counts(DEVICE).failed} refused\n`);
