import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { AssertionError } from "../errors.ts";
import { CountingMeter } from "../meter.ts";
import {
  attachDevice,
  attachGroup,
  attachPasid,
  claimDevice,
  claimGroup,
  detachGroup,
  detachPasid,
  releaseDevice,
  releaseGroup,
  unuseDefaultDomain,
  useDefaultDomain,
} from "./attach.ts";
import { DomainType } from "./domain.ts";
import { FakeOps, makeGroup, userDomain } from "./group-world.suite.ts";
import { ReservedType } from "./reserved-regions.ts";

const user = { name: "a user" };
const direct = { type: ReservedType.DIRECT, start: 0x1000n, last: 0x1fffn, prot: 3 };

describe("ownership", () => {
  it("row 40: with a kernel driver bound to one function a user gets EPERM", () => {
    const { group } = makeGroup(["a", "b"]);
    expect(useDefaultDomain(group)).toBe(Errno.OK);
    expect(claimGroup(group, user)).toBe(Errno.EPERM);
    expect(claimDevice(group, user)).toBe(Errno.EPERM);
    unuseDefaultDomain(group);
    expect(claimGroup(group, user)).toBe(Errno.OK);
  });

  it("by a user blocks the group, and a kernel driver that binds then gets EBUSY", () => {
    const { ops, group } = makeGroup(["a", "b"]);
    expect(claimGroup(group, user)).toBe(Errno.OK);
    expect([ops.at.get("a"), ops.at.get("b")]).toEqual([ops.blockedDomain, ops.blockedDomain]);
    expect(useDefaultDomain(group)).toBe(Errno.EBUSY);
    expect(claimGroup(group, user)).toBe(Errno.EPERM);
    releaseGroup(group);
    expect(group.domain).toBe(group.defaultDomain);
    expect(useDefaultDomain(group)).toBe(Errno.OK);
    expect(useDefaultDomain(group)).toBe(Errno.OK);
    expect(group.ownerCount).toBe(2);
  });

  it("by devices counts claims of one user and refuses another", () => {
    const { group } = makeGroup(["a", "b"]);
    expect(claimDevice(group, user)).toBe(Errno.OK);
    expect(claimDevice(group, user)).toBe(Errno.OK);
    expect(claimDevice(group, { name: "another" })).toBe(Errno.EPERM);
    releaseDevice(group);
    expect([group.owner, group.domain]).toEqual([user, group.blockingDomain]);
    releaseDevice(group);
    expect([group.owner, group.domain]).toEqual([null, group.defaultDomain]);
    expect(() => releaseDevice(group)).toThrow(AssertionError);
  });

  it("row 39: of a device with a non-relaxable direct region is refused with EINVAL", () => {
    const ops = new FakeOps();
    ops.regions.set("b", [direct]);
    const { group, events } = makeGroup(["a", "b"], { ops });
    events.length = 0;
    expect(claimGroup(group, user)).toBe(Errno.EINVAL);
    // The first one was moved already and goes back, the second one is attached again.
    expect(events).toEqual(["attach a", "attach a", "attach b"]);
    expect([group.owner, group.ownerCount]).toEqual([null, 0]);
    expect(ops.at.get("a")).toBe(group.defaultDomain);
  });

  it("of a device with a relaxable region is granted", () => {
    const ops = new FakeOps();
    ops.regions.set("a", [{ ...direct, type: ReservedType.DIRECT_RELAXABLE }]);
    const { group } = makeGroup(["a"], { ops });
    expect(claimGroup(group, user)).toBe(Errno.OK);
  });

  it("without a blocked state of the hardware blocks by an empty paging domain", () => {
    const ops = new FakeOps();
    ops.blockedDomain = null;
    ops.regions.set("b", [direct]);
    const { group } = makeGroup(["a"], { ops });
    expect(claimGroup(group, user)).toBe(Errno.OK);
    expect(group.domain!.isPaging).toBe(true);
    expect(ops.at.get("a")).toBe(group.blockingDomain);
    // A device that needs its direct region is not put on that one either.
    const strict = makeGroup(["b"], { ops });
    expect(claimGroup(strict.group, user)).toBe(Errno.EINVAL);
    ops.allocErrno = Errno.ENOMEM;
    const poor = makeGroup(["c"], { ops, system: { defaultType: DomainType.IDENTITY } });
    expect(poor.errno).toBe(Errno.OK);
    expect(claimGroup(poor.group, user)).toBe(Errno.ENOMEM);
  });

  it("is refused with EBUSY while the group is elsewhere or a PASID is attached", () => {
    const { ops, group } = makeGroup([{ name: "a", ops: null, maxPasids: 8 }]);
    expect(attachPasid(group, userDomain(ops), 3)).toBe(Errno.OK);
    expect(claimGroup(group, user)).toBe(Errno.EBUSY);
    detachPasid(group, 3);
    expect(attachGroup(group, userDomain(ops))).toBe(Errno.OK);
    expect(claimGroup(group, user)).toBe(Errno.EBUSY);
  });

  it("by a kernel driver waits with EPROBE_DEFER for the default domain", () => {
    const { group } = makeGroup(["a"]);
    group.defaultDomain = null;
    expect(useDefaultDomain(group)).toBe(Errno.EPROBE_DEFER);
  });
});

describe("attach_group", () => {
  it("row 89: of a group on user domain A to B is EBUSY", () => {
    const { ops, group } = makeGroup(["a"]);
    claimGroup(group, user);
    const a = userDomain(ops);
    expect(attachGroup(group, a)).toBe(Errno.OK);
    expect(attachGroup(group, userDomain(ops))).toBe(Errno.EBUSY);
    expect(group.domain).toBe(a);
  });

  it("row 90: of one device of a group of two is EINVAL", () => {
    const two = makeGroup(["a", "b"]);
    expect(attachDevice(two.group, userDomain(two.ops))).toBe(Errno.EINVAL);
    const one = makeGroup(["a"]);
    expect(attachDevice(one.group, userDomain(one.ops))).toBe(Errno.OK);
  });

  it("row 91: undone leaves the group blocked while it has an owner, else on its default", () => {
    const { ops, group } = makeGroup(["a", "b"]);
    attachGroup(group, userDomain(ops));
    detachGroup(group);
    expect([group.domain, ops.at.get("b")]).toEqual([group.defaultDomain, group.defaultDomain]);
    claimGroup(group, user);
    attachGroup(group, userDomain(ops));
    detachGroup(group);
    expect([group.domain, ops.at.get("b")]).toEqual([ops.blockedDomain, ops.blockedDomain]);
  });

  it("to a domain of another driver is EINVAL, to this driver's identity domain is fine", () => {
    const { ops, group } = makeGroup(["a"]);
    expect(attachGroup(group, userDomain(new FakeOps()))).toBe(Errno.EINVAL);
    expect(attachGroup(group, new FakeOps().identityDomain!)).toBe(Errno.EINVAL);
    expect(attachGroup(group, ops.identityDomain!)).toBe(Errno.OK);
  });

  it("while a member is being reset is EBUSY", () => {
    const { ops, group } = makeGroup(["a"]);
    group.recoveryCount += 1;
    expect(attachGroup(group, userDomain(ops))).toBe(Errno.EBUSY);
    group.recoveryCount -= 1;
    expect(attachGroup(group, userDomain(ops))).toBe(Errno.OK);
  });

  it("of two groups of one driver to one domain puts all their devices on it", () => {
    const first = makeGroup(["a", "b"]);
    const second = makeGroup(["c"], { ops: first.ops });
    const domain = userDomain(first.ops);
    expect([attachGroup(first.group, domain), attachGroup(second.group, domain)]).toEqual([0, 0]);
    expect(["a", "b", "c"].map((name) => first.ops.at.get(name))).toEqual([domain, domain, domain]);
  });

  it("that fails for the n-th device puts every device back, for every n", () => {
    const names = ["a", "b", "c", "d", "e"];
    for (let n = 0; n < names.length; n += 1) {
      for (const errno of [Errno.EINVAL, Errno.ENOMEM, Errno.ENOSPC, Errno.EBUSY, Errno.ENODEV]) {
        const { ops, group, events } = makeGroup(names);
        claimGroup(group, user);
        events.length = 0;
        ops.successes = n;
        ops.attachErrno = errno;
        expect(attachGroup(group, userDomain(ops))).toBe(errno);
        expect(group.domain).toBe(group.blockingDomain);
        for (const name of names) expect(ops.at.get(name)).toBe(ops.blockedDomain);
        const moved = names.slice(0, n).map((name) => `attach ${name}`);
        expect(events).toEqual([...moved, ...moved, `attach ${names[n]}`]);
        // Nothing is left over that would be in the way of another try.
        expect(attachGroup(group, userDomain(ops))).toBe(Errno.OK);
      }
    }
  });

  it("whose way back fails as well leaves that device blocked", () => {
    const { ops, group } = makeGroup(["a", "b", "c"]);
    claimGroup(group, user);
    releaseGroup(group);
    ops.successes = 2;
    ops.failures = 2;
    expect(attachGroup(group, userDomain(ops))).toBe(Errno.ENOMEM);
    const found = ["a", "b", "c"].map((name) => ops.at.get(name));
    expect(found).toEqual([ops.blockedDomain, group.defaultDomain, group.defaultDomain]);
  });

  it("counts a step for each device moved", () => {
    const meter = new CountingMeter();
    const { ops, group } = makeGroup(["a", "b"], { system: { meter } });
    expect(meter.events("attach")).toBe(2);
    attachGroup(group, userDomain(ops));
    expect(meter.events("attach")).toBe(4);
    attachGroup(group, group.domain!);
    expect(meter.events("attach")).toBe(4);
  });

  it("of a device left alone by a crash kernel happens at its first other domain", () => {
    const { ops, group } = makeGroup([{ name: "a", ops: null, attachDeferred: true }]);
    expect(ops.at.has("a")).toBe(false);
    expect(group.domain).toBe(group.defaultDomain);
    attachGroup(group, userDomain(ops));
    detachGroup(group);
    expect(ops.at.get("a")).toBe(group.defaultDomain);
  });
});

describe("attach_device_pasid", () => {
  const members = ["a", "b", "c"].map((name) => ({ name, ops: null, maxPasids: 16 }));

  it("attaches all members or none", () => {
    const { ops, group } = makeGroup(members);
    const domain = userDomain(ops);
    ops.pasidErrno = Errno.ENOSPC;
    expect(attachPasid(group, domain, 4)).toBe(Errno.ENOSPC);
    expect([ops.pasidsAt.size, group.pasids.size]).toEqual([0, 0]);
    ops.pasidErrno = Errno.OK;
    expect(attachPasid(group, domain, 4)).toBe(Errno.OK);
    expect([...ops.pasidsAt.keys()]).toEqual(["a/4", "b/4", "c/4"]);
    detachPasid(group, 4);
    expect(ops.pasidsAt.size).toBe(0);
  });

  it("answers EBUSY to a PASID in use, EINVAL to 0, to one a member lacks, and to a stranger", () => {
    const { ops, group } = makeGroup(members);
    expect(attachPasid(group, userDomain(ops), 4)).toBe(Errno.OK);
    expect(attachPasid(group, userDomain(ops), 4)).toBe(Errno.EBUSY);
    expect(attachPasid(group, userDomain(ops), 0)).toBe(Errno.EINVAL);
    expect(attachPasid(group, userDomain(ops), 16)).toBe(Errno.EINVAL);
    expect(attachPasid(group, userDomain(new FakeOps()), 5)).toBe(Errno.EINVAL);
  });
});
