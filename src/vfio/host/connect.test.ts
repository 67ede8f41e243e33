import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { VfioTask } from "../file.ts";
import { AddressSpace } from "../process/address-space.ts";
import { contiguousFrames } from "../process/frame-source.ts";
import { UserProcess } from "../process/user-process.ts";
import { VfioRequest } from "../requests.ts";
import { allReduceHost } from "./all-reduce-host.ts";
import { connect, mapMemory } from "./connect.ts";
import { buildHost } from "./host.ts";
import type { HostPlan } from "./host-plan.ts";
import { deviceAccess, walkedNodes } from "./walks.ts";
import { map, text, twoNodePlan, user } from "./world.suite.ts";

const A = "0000:10:00.0";
const B = "0000:11:00.0";

/** What building or connecting fails with. */
function failure(act: () => unknown): { code: string; message: string; hint: string | undefined } {
  try {
    act();
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    return { code: error.code, message: error.message, hint: error.hint };
  }
  throw new Error("it fails");
}

describe("connecting devices", () => {
  it("sets the type with the first and adds the others; a group named twice is there once", () => {
    const slot = { unit: "dmar0", isMultifunction: true } as const;
    const devices = [
      { address: "0000:10:00.0", ...slot },
      { address: "0000:10:00.1", ...slot },
      { address: B, unit: "dmar1" },
    ];
    const host = buildHost(twoNodePlan({ devices }));
    const task = user();
    const connection = connect(host, task, ["0000:10:00.0", "0000:10:00.1"]);
    expect([connection.groups.length, connection.container.groups.length]).toEqual([1, 1]);
    const memory = { iova: 0x10_0000n, vaddr: 0x20_0000n, size: 0x4000n };
    expect(mapMemory(task, connection.fd, memory)).toBe(Errno.OK);
    expect(mapMemory(task, connection.fd, memory)).toBe(Errno.EEXIST);
    connection.join([B, B]);
    expect(connection.groups.length).toBe(2);
    for (const { address } of devices) {
      expect(deviceAccess(host, address, 0x102, PROT_RW)).toBe(0x10_0202);
    }
  });

  it("says which step failed, for what, and what to look at", () => {
    const host = buildHost(
      twoNodePlan({
        devices: [
          { address: A, unit: "dmar0", driver: "kernel" },
          { address: B, unit: "dmar0", isMultifunction: true },
          { address: "0000:11:00.1", unit: "dmar0", isMultifunction: true, driver: "kernel" },
        ],
      }),
    );
    expect(failure(() => connect(host, user(), [A]))).toEqual({
      code: "vfio/not-connected",
      message: `Cannot find the group of ${A}: ENOENT`,
      hint: "bind the device to vfio-pci, and give it an IOMMU",
    });
    const forged = failure(() => connect(host, user(), [B]));
    expect(forged.message).toBe(`Cannot set the container of ${B}: EPERM`);
    const taken = buildHost(twoNodePlan());
    connect(taken, user(), [A]);
    expect(failure(() => connect(taken, user(), [A])).message).toBe(
      "Cannot open /dev/vfio/0: EBUSY",
    );
  });
});

describe("a plan", () => {
  it("of the RFC's host has sixteen devices in groups of their own, behind four units", () => {
    const host = buildHost(allReduceHost());
    expect([host.devices.size, host.groups.all.length, host.units.size]).toEqual([16, 16, 4]);
    const nodes = [...host.devices.values()].map((device) => device.iommuDevice.node);
    expect(nodes).toEqual([...Array(8).fill(0), ...Array(8).fill(1)]);
    // The root table of each default domain.
    expect(host.tablePages()).toEqual([8, 8]);
  });

  it("with bridges groups what their ACS does not keep apart", () => {
    const acs = { capability: 0x1d, control: 0x1d };
    const port = { unit: "dmar0", portType: "root-port", acs } as const;
    const plan = (control: number): HostPlan =>
      twoNodePlan({
        devices: [
          { address: "0000:00:01.0", ...port, secondaryBus: 1 },
          {
            address: "0000:01:00.0",
            unit: "dmar0",
            portType: "upstream",
            bridge: "0000:00:01.0",
            secondaryBus: 2,
          },
          ...[0, 1].flatMap((port) => {
            const address = `0000:02:00.${port}`;
            const below = 3 + port;
            return [
              {
                address,
                unit: "dmar0",
                portType: "downstream" as const,
                isMultifunction: true,
                acs: { capability: 0x1d, control },
                bridge: "0000:01:00.0",
                secondaryBus: below,
              },
              { address: `0000:0${below}:00.0`, unit: "dmar0", bridge: address },
            ];
          }),
        ],
      });
    const groupsOf = (control: number) => {
      const host = buildHost(plan(control));
      return ["0000:03:00.0", "0000:04:00.0"].map((address) => host.groupPath(address));
    };
    const [first, second] = groupsOf(0x1d);
    expect(first).not.toBe(second);
    const [one, other] = groupsOf(0x01);
    expect(one).toBe(other);
  });

  it("that does not fit together is refused with the device's address", () => {
    const devices = (device: object) =>
      twoNodePlan({ devices: [{ address: A, unit: "dmar0", ...device }] });
    const codes = [
      devices({ unit: "dmar9" }),
      devices({ address: "10:00.0" }),
      devices({ address: "0000:10:20.0" }),
      devices({ bridge: "0000:00:01.0" }),
      devices({ bridge: A }),
    ].map((plan) => failure(() => buildHost(plan)).code);
    expect(codes).toEqual([
      "vfio/no-such-unit",
      "vfio/bad-address",
      "vfio/bad-address",
      "vfio/no-such-bridge",
      "vfio/no-such-bridge",
    ]);
    const unsound: HostPlan[] = [
      twoNodePlan({ plan: { nodes: [] } }),
      twoNodePlan({ plan: { nodes: [{ memory: 4096 }] } }),
      twoNodePlan({ plan: { nodes: [{ memory: Number.NaN }] } }),
      twoNodePlan({ plan: { distances: [[10, 20]] } }),
      twoNodePlan({ far: { name: "dmar0" } }),
      twoNodePlan({ far: { node: 2 } }),
      twoNodePlan({ far: { format: "vtd-second-stage-9" } }),
      twoNodePlan({ far: { domainIds: 2 } }),
      devices({ node: -2 }),
      twoNodePlan({ devices: [A, "0001:10:00.0"].map((address) => ({ address, unit: "dmar0" })) }),
      devices({ bars: Array(7).fill(null) }),
    ];
    for (const plan of unsound) expect(failure(() => buildHost(plan)).code).toBe("vfio/bad-plan");
    const twice = twoNodePlan({ devices: [A, A].map((address) => ({ address, unit: "dmar0" })) });
    expect(failure(() => buildHost(twice)).code).toBe("vfio/bad-address");
  });

  it("may give a device BARs, which others reach through a mapping of them", () => {
    const bar = { pfn: 0x40_0000_0000 / 4096, bytes: 2 ** 22 };
    const host = buildHost(
      twoNodePlan({
        devices: [
          { address: A, unit: "dmar0", bars: [bar] },
          { address: B, unit: "dmar1" },
        ],
      }),
    );
    const frames = contiguousFrames({ basePfn: 2 ** 20, pages: 512 });
    const memory = new AddressSpace({ frames });
    const task = new VfioTask({ process: new UserProcess({ memory }) });
    const { fd, groups } = connect(host, task, [A, B]);
    const opened = task.ioctl(groups[0]!, VfioRequest.GROUP_GET_DEVICE_FD, text(A));
    const region = host.device(A).vfio!.region(0);
    expect([opened.errno, region]).toMatchObject([0, { bytes: 2 ** 22 }]);
    const backing = { kind: "device", device: host.device(A).vfio!, filePage: 0 } as const;
    expect(memory.mmap({ vpn: 0x1000, pages: 1024, backing })).toBe(Errno.OK);
    const window = { iova: 0x8000_0000n, vaddr: 0x100_0000n, size: 2n ** 22n };
    expect(mapMemory(task, fd, window)).toBe(Errno.OK);
    expect(task.process.lockedPages).toBe(0);
    expect(deviceAccess(host, B, 0x8_0000 + 1023, PROT_RW)).toBe(bar.pfn + 1023);
  });

  it("may give a device ATS, whose cache a detach empties", () => {
    const ats = { sets: 4, ways: 2, replacement: "lru", pageShifts: [12, 21] } as const;
    const host = buildHost(twoNodePlan({ devices: [{ address: A, unit: "dmar0", ats }] }));
    const task = user();
    const { fd, groups } = connect(host, task, [A]);
    map(task, fd, 0x100, 1);
    expect(deviceAccess(host, A, 0x100, PROT_RW)).toBe(0x10_0100);
    task.close(groups[0]!);
    expect(deviceAccess(host, A, 0x100, PROT_RW)).toBe(-1);
  });

  it("with a device that no unit serves has no walk for it", () => {
    const host = buildHost(twoNodePlan({ devices: [{ address: A, unit: null }] }));
    expect([walkedNodes(host, A, 0), host.groupPath(A)]).toEqual([null, null]);
  });
});
