// A VM with I/O page faults: nothing is pinned, the device's first touch brings a page in, and
// memory that goes away goes from the IOMMU too. See docs/io-page-faults.md.
import {
  AddressSpace,
  connect,
  contiguousFrames,
  errnoName,
  FaultingHost,
  mapMemory,
  PROT_RW,
  Type1Request,
  UserProcess,
  VfioTask,
} from "iommukit";

const [READ, WRITE] = [1, 2];
const MIB = 256; // pages of 4 KiB
const VPN = 2 ** 24; // where the VMM has the guest's memory
const RAM = 2 ** 18; // where the guest has it: Arm's "virt" machine begins at 1 GiB
const DEVICE = "0000:75:00.0"; // an accelerator behind an SMMU that stalls
const must = (errno) => {
  if (errno !== 0) throw new Error(errnoName(errno));
};

/** A VM of 16 GiB whose container has faults on; `premap` is the proposal's PREMAP_LEN. */
function createVm(premap) {
  const plan = {
    nodes: [{ memory: 64 * 2 ** 20 }],
    units: [{ name: "smmu0", kind: "smmu", node: 0 }],
    devices: [{ address: DEVICE, unit: "smmu0" }],
  };
  const faults = new FaultingHost(plan, { premap });
  const pages = 16 * 1024 * MIB;
  const memory = new AddressSpace({ frames: contiguousFrames({ basePfn: 2 ** 23, pages }) });
  memory.mmap({ vpn: VPN, pages, backing: { kind: "anonymous", isHuge: false } });
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd, type1 } = connect(faults.host, vmm, [DEVICE]);
  must(vmm.ioctl(fd, Type1Request.ENABLE_IOPF, 0).errno);
  const [iova, vaddr, size] = [RAM, VPN, pages].map((count) => BigInt(count) * 4096n);
  must(mapMemory(vmm, fd, { iova, vaddr, size }));
  return { faults, memory, vmm, type1, faulting: faults.faultings[0] };
}

/** A message: the device goes through its rings, reads one buffer and writes another. */
function job({ input, output, pages, rings = [] }) {
  const segment = (page, count, access) => ({ iovaPfn: RAM + page, pages: count, access });
  const segments = rings.map(([page, count]) => segment(page, count, PROT_RW));
  for (let page = 0; page < pages; page += 1) {
    segments.push(segment(input + page, 1, READ), segment(output + page, 1, WRITE));
  }
  return segments;
}

/** Runs jobs one after the other. @returns faults after each */
function run(premap, jobs) {
  const vm = createVm(premap);
  return jobs.map((each) => {
    vm.faults.start(DEVICE, job(each));
    vm.faults.settle();
    return vm.faulting.counts.requests;
  });
}

const print = (text) => process.stdout.write(`${text}\n`);
const row = (title, counts) =>
  print(`${title.padEnd(58)}${counts.map((n) => `${n}`.padStart(6)).join("")}`);

// One megabyte in, one out; the queue and its neighbours take six pages in three places.
const rings = [
  [0x1000, 2],
  [0x1800, 2],
  [0x2000, 2],
];
const small = { input: 0x1_0000, output: 0x2_0000, pages: MIB };
const smallAgain = { input: 0x3_0000, output: 0x4_0000, pages: MIB };
const large = { input: 0x1_0000, output: 0x2_0000, pages: 10 * MIB };
const largeAgain = { input: 0x3_0000, output: 0x4_0000, pages: 10 * MIB };
const askew = { ...large, input: large.input + 100, output: large.output + 100 };
const one = { pages: 1 };
const aligned = { pages: 512, reach: "aligned" };

print("faults after a message, after another in the same buffers, after one in others");
row("1 MB, a page at a time", run(one, [small, small, smallAgain]));
row(
  "1 MB, a page at a time, with six pages of rings",
  run(one, [
    { ...small, rings },
    { ...small, rings },
    { ...smallAgain, rings },
  ]),
);
row("10 MB, 512 pages from the fault on", run({}, [large, large, largeAgain]));
row(
  "10 MB, 512 pages, with six pages of rings",
  run({}, [
    { ...large, rings },
    { ...large, rings },
    { ...largeAgain, rings },
  ]),
);
row("10 MB, 512 pages, buffers that begin in mid-block", run({}, [askew, askew, largeAgain]));
row("10 MB, aligned blocks of 512, the same buffers", run(aligned, [askew, askew, largeAgain]));

const vm = createVm({});
vm.faults.start(DEVICE, job(large));
vm.faults.settle();
const mapped = () => vm.faulting.stateOf(vm.type1.mappings.find(RAM)).mapped.count;
print(
  `\npinned and charged after 20 MB of DMA into a VM of 16 GiB: ${vm.vmm.process.lockedPages} pages`,
);
print(`mapped in the IOMMU: ${mapped()} pages`);
vm.memory.discard(VPN + large.input + 5, 1); // the balloon takes a page
print(`after the VM gave one back: ${mapped()} pages`);
vm.faults.start(DEVICE, [{ iovaPfn: RAM + large.input, pages: 8, access: READ }]);
vm.faults.settle();
const { done, failed } = vm.faults.counts(DEVICE);
print(
  `after the device read there again: ${mapped()} pages, of ${done + failed} accesses ${failed} failed`,
);
