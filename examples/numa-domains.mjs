// Sixteen devices on two NUMA nodes, passed to one VM: where do the page tables lie that their
// IOMMUs walk? See docs/numa-domains.md. Run it in this folder's package: node examples/numa-domains.mjs
import {
  AddressSpace,
  allReduceHost,
  buildHost,
  connect,
  deviceAccess,
  errnoName,
  IoasMapFlag,
  Iommufd,
  mapMemory,
  PROT_RW,
  readsByUnit,
  scatteredFrames,
  UserProcess,
  VfioTask,
  walkedNodes,
} from "iommukit";

const GUEST_PAGES = 2 ** 18; // 1 GiB of 4 KiB pages
const ACCESSES = 4000; // of each device
const FIRST_VPN = 2 ** 24;

/** A VMM with the guest's memory, in frames as they lie on a host that has run for a while. */
function createVmm() {
  const frames = scatteredFrames({ basePfn: 2 ** 25, pages: GUEST_PAGES, unitPages: 1, seed: 1 });
  const memory = new AddressSpace({ frames });
  const backing = { kind: "anonymous", isHuge: false };
  memory.mmap({ vpn: FIRST_VPN, pages: GUEST_PAGES, backing });
  return new VfioTask({ process: new UserProcess({ memory }) });
}

/** As in a PC, half of the memory lies above 4 GiB: below it are interrupts and registers. */
const HALF = GUEST_PAGES / 2;
const iovaOf = (page) => (page < HALF ? page : page - HALF + 2 ** 20);
const bytes = (pages) => BigInt(pages) * 4096n;
const slots = [0, HALF].map((page) => {
  return { iova: bytes(iovaOf(page)), vaddr: bytes(FIRST_VPN + page), size: bytes(HALF) };
});

function must(errno) {
  if (errno !== 0) throw new Error(errnoName(errno));
}

/** All devices, those of the given node first. */
function devicesFrom(host, node) {
  const { devices } = host.plan;
  const isFirst = ({ address }) => host.device(address).iommuDevice.node === node;
  const inOrder = [...devices.filter(isFirst), ...devices.filter((each) => !isFirst(each))];
  return inOrder.map(({ address }) => address);
}

/** As QEMU does it: memory is mapped with the first device, the others join what is there. */
function oneContainer(host, vmm, [first, ...others]) {
  const { fd, type1, join } = connect(host, vmm, [first]);
  for (const slot of slots) must(mapMemory(vmm, fd, slot));
  join(others);
  return type1.domains.length;
}

/** A container for each node, as a VMM can do without any change to the kernel. */
function containerPerNode(host, vmm, addresses) {
  for (const node of [0, 1]) {
    const isLocal = (address) => host.device(address).iommuDevice.node === node;
    oneContainer(host, vmm, addresses.filter(isLocal));
  }
  return 2;
}

/** One address space of iommufd, with a page table for each IOMMU. */
function tablePerIommu(host, vmm, addresses) {
  const iommufd = new Iommufd({ process: vmm.process });
  const { ioasId } = iommufd.ioasAlloc();
  const tables = new Map();
  for (const address of addresses) {
    const { iommuDevice, unit } = host.device(address);
    const { devId } = iommufd.bind(iommuDevice, host.groups.of(iommuDevice));
    if (!tables.has(unit)) tables.set(unit, iommufd.hwptAlloc({ devId, ptId: ioasId }).hwptId);
    must(iommufd.attach(devId, tables.get(unit)).errno);
  }
  const flags = IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE;
  for (const { iova, vaddr: userVa, size: length } of slots) {
    must(iommufd.ioasMap({ ioasId, flags, iova, userVa, length }).errno);
  }
  vmm.charged = iommufd.caller.user.lockedPages;
  return tables.size;
}

/** Share of a node's reads that go to another node. */
function remoteShare(host, node) {
  let remote = 0;
  let all = 0;
  for (const [name, reads] of readsByUnit(host)) {
    if (host.units.get(name).node !== node) continue;
    remote += reads.remote;
    all += reads.remote + reads.local;
  }
  return `${((100 * remote) / all).toFixed(0)} %`;
}

function run(title, kernel, { rule = null, cpuNode = 0, firstNode = 0 }, attach) {
  const host = buildHost(allReduceHost({ kernel }), { type1: { attachGroupByNode: rule } });
  host.pool.cpuNode = cpuNode;
  const vmm = createVmm();
  const boot = host.tablePages();
  const domains = attach(host, vmm, devicesFrom(host, firstNode));
  // Each device goes through the guest's memory in the same disorder.
  for (const address of devicesFrom(host, 0)) {
    for (let index = 0, page = 1; index < ACCESSES; index += 1) {
      page = (page * 69_069 + 1) % GUEST_PAGES;
      if (deviceAccess(host, address, iovaOf(page), PROT_RW) < 0) throw new Error("fault");
    }
  }
  const tables = host.tablePages().map((pages, node) => pages - boot[node]);
  const charged = (vmm.charged ?? 0) + vmm.process.lockedPages;
  const row = [title, domains, ...tables, `${(charged * 4096) / 2 ** 30} GiB`];
  print([...row, remoteShare(host, 0), remoteShare(host, 1)]);
  return host;
}

function print(cells) {
  const [title, ...rest] = cells.map(String);
  const columns = rest.map((cell, index) => cell.padStart([9, 8, 8, 9, 9, 9][index]));
  process.stdout.write(`${title.padEnd(37)}${columns.join("")}\n`);
}

print(["", "domains", "tables", "tables", "charged", "remote", "remote"]);
print(["", "", "node 0", "node 1", "", "of 0", "of 1"]);
run("6.6, the VMM on node 0", "6.6", { cpuNode: 0 }, oneContainer);
run("6.6, the VMM on node 1", "6.6", { cpuNode: 1 }, oneContainer);
run("6.6, attach_group_by_node=0", "6.6", { cpuNode: 1, rule: 0 }, oneContainer);
run("6.6, attach_group_by_node=1", "6.6", { cpuNode: 1, rule: 1 }, oneContainer);
run("6.6, attach_group_by_node=2", "6.6", { cpuNode: 1, rule: 2 }, oneContainer);
run("7.2, devices of node 0 first", "7.2", { firstNode: 0 }, oneContainer);
const host = run("7.2, devices of node 1 first", "7.2", { firstNode: 1 }, oneContainer);
run("7.2, a container for each node", "7.2", {}, containerPerNode);
run("7.2, iommufd, a table for each IOMMU", "7.2", {}, tablePerIommu);

const [gpu] = devicesFrom(host, 0);
const nodes = walkedNodes(host, gpu, 0x1234).join(", ");
process.stdout.write(
  `\nnode 1 first: a walk for ${gpu}, which is on node 0, reads nodes ${nodes}\n`,
);
