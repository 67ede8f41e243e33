/** Groups, devices and a driver that does as it is told, for the tests of this room. */
import { Errno } from "../errno.ts";
import {
  type DemandedType,
  IommuDevice,
  type IommuDeviceOptions,
  type IommuOps,
} from "./device.ts";
import { DomainType, IommuDomain } from "./domain.ts";
import type { GroupSystem, IommuGroup } from "./group.ts";
import { IommuGroups } from "./groups.ts";
import type { ReservedRegion } from "./reserved-regions.ts";
import { type Script, ScriptedDriver } from "./scripted-driver.suite.ts";

/** A driver that notes which device is where and fails on demand. */
export class FakeOps implements IommuOps {
  readonly name = "fake";
  identityDomain: IommuDomain | null = new IommuDomain(DomainType.IDENTITY, null);
  blockedDomain: IommuDomain | null = new IommuDomain(DomainType.BLOCKED, null);
  /** Attach calls that succeed before `failures` of them fail with `attachErrno`. */
  successes = Number.POSITIVE_INFINITY;
  failures = 1;
  attachErrno: number = Errno.ENOMEM;
  pasidErrno: number = Errno.OK;
  allocErrno: number = Errno.OK;
  script: Script = { gathers: true };
  readonly at = new Map<string, IommuDomain>();
  readonly pasidsAt = new Map<string, IommuDomain>();
  readonly demands = new Map<string, DemandedType>();
  readonly regions = new Map<string, ReservedRegion[]>();
  readonly freed: IommuDomain[] = [];
  readonly allocs: boolean[] = [];

  defaultType(device: IommuDevice): DemandedType {
    return this.demands.get(device.name) ?? null;
  }

  reservedRegions(device: IommuDevice): readonly ReservedRegion[] {
    return this.regions.get(device.name) ?? [];
  }

  allocPaging(_device: IommuDevice, forPasid: boolean): IommuDomain | number {
    this.allocs.push(forPasid);
    if (this.allocErrno !== Errno.OK) return this.allocErrno;
    return new IommuDomain(DomainType.UNMANAGED, new ScriptedDriver("range", this.script));
  }

  freePaging(domain: IommuDomain): void {
    this.freed.push(domain);
  }

  attach(device: IommuDevice, domain: IommuDomain): number {
    this.successes -= 1;
    if (this.successes < 0 && this.failures > 0) {
      this.failures -= 1;
      return this.attachErrno;
    }
    this.at.set(device.name, domain);
    return Errno.OK;
  }

  attachPasid(device: IommuDevice, domain: IommuDomain | null, pasid: number): number {
    if (this.pasidErrno !== Errno.OK && device.name === "c") return this.pasidErrno;
    if (domain === null) this.pasidsAt.delete(`${device.name}/${pasid}`);
    else this.pasidsAt.set(`${device.name}/${pasid}`, domain);
    return Errno.OK;
  }
}

/** A user domain of a driver. */
export function userDomain(ops: IommuOps): IommuDomain {
  const domain = new IommuDomain(DomainType.UNMANAGED, new ScriptedDriver("range"));
  domain.owner = ops;
  return domain;
}

/** One group with these devices, set up, and what was traced. */
export function makeGroup(
  devices: readonly IommuDeviceOptions[] | readonly string[],
  options: { ops?: FakeOps; system?: Partial<GroupSystem> } = {},
): { ops: FakeOps; groups: IommuGroups; group: IommuGroup; events: string[]; errno: number } {
  const ops = options.ops ?? new FakeOps();
  const events: string[] = [];
  const system: GroupSystem = {
    defaultType: DomainType.DMA,
    trace: {
      addDevice: (group, device) => events.push(`add ${group} ${device}`),
      removeDevice: (group, device) => events.push(`remove ${group} ${device}`),
      attachDevice: (device) => events.push(`attach ${device}`),
    },
    ...options.system,
  };
  // Functions of one slot without ACS share a group.
  const groups = new IommuGroups(
    system,
    devices.map((_, devfn) => {
      const common = { segment: 0, bus: 0, devfn, acs: null, bridge: -1, secondaryBus: -1 };
      return { ...common, portType: "conventional" as const, isMultifunction: true };
    }),
  );
  const made = devices.map(
    (device) =>
      new IommuDevice(typeof device === "string" ? { name: device, ops } : { ...device, ops }),
  );
  const errno = groups.probe(made.map((device, pciIndex) => ({ device, pciIndex })));
  const group = groups.of(made[0]!)!;
  return { ops, groups, group, events, errno };
}
