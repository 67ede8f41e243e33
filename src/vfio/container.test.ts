import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { IommuDevice } from "../iommu/device.ts";
import { Container } from "./container.ts";
import type { VfioDevice } from "./device-file.ts";
import { ForeignFile, type IoctlArgument } from "./file.ts";
import { connect } from "./host/connect.ts";
import { buildHost } from "./host/host.ts";
import {
  map,
  open,
  openGroup,
  reach,
  setContainer,
  status,
  text,
  twoNodePlan,
  user,
} from "./host/world.suite.ts";
import { VfioExtension, VfioRequest } from "./requests.ts";
import { Type1Info, Type1Request } from "./uapi/type1.ts";

const NO_INFO = { argsz: 0, flags: 0, iovaPgsizes: 0n, capOffset: 0, pad: 0 };
const A = "0000:10:00.0";
const B = "0000:90:00.0";
const setup = () => {
  const host = buildHost(twoNodePlan());
  const task = user();
  return { host, task };
};

describe("a container", () => {
  it("says version 0, and what back ends could do before one is set", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    const has = (extension: number) =>
      task.ioctl(fd, VfioRequest.CHECK_EXTENSION, extension).value > 0;
    expect(task.ioctl(fd, VfioRequest.GET_API_VERSION)).toEqual({
      errno: 0,
      value: 0,
      bytes: null,
    });
    expect([1, 2, 3, 4, 5, 6, 7, 8, 9, 10].filter(has)).toEqual([1, 3, 9]);
    setContainer(task, openGroup(host, task, A), fd);
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.OK);
    expect([1, 2, 3, 4, 5, 6, 7, 8, 9, 10].filter(has)).toEqual([1, 3, 4, 9, 10]);
  });

  it("row 42: takes a type only with a group, once, and never the nesting one", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    const set = (type: number) => task.ioctl(fd, VfioRequest.SET_IOMMU, type).errno;
    expect(set(VfioExtension.TYPE1_V2)).toBe(Errno.EINVAL);
    setContainer(task, openGroup(host, task, A), fd);
    expect(set(VfioExtension.TYPE1_NESTING)).toBe(Errno.ENODEV);
    expect(set(VfioExtension.NOIOMMU)).toBe(Errno.ENODEV);
    expect(set(VfioExtension.TYPE1)).toBe(Errno.OK);
    expect(set(VfioExtension.TYPE1_V2)).toBe(Errno.EINVAL);
  });

  it("row 44: answers an unknown ioctl EINVAL without a back end, ENOTTY with type1", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    expect(task.ioctl(fd, 0x3b99).errno).toBe(Errno.EINVAL);
    expect(map(task, fd, 0, 1).errno).toBe(Errno.EINVAL);
    setContainer(task, openGroup(host, task, A), fd);
    expect(map(task, fd, 0, 1).errno).toBe(Errno.EINVAL);
    task.ioctl(fd, VfioRequest.SET_IOMMU, 3);
    expect(task.ioctl(fd, 0x3b99).errno).toBe(Errno.ENOTTY);
    expect(map(task, fd, 0, 1).errno).toBe(Errno.OK);
  });

  it("answers on VT-d as a recorded Linux 7.2 did", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    const group = openGroup(host, task, A);
    const { bytes: flags } = task.ioctl(group, VfioRequest.GROUP_GET_STATUS, status());
    expect([...flags!]).toEqual([8, 0, 0, 0, 1, 0, 0, 0]);
    setContainer(task, group, fd);
    task.ioctl(fd, VfioRequest.SET_IOMMU, 3);
    const asked = Type1Info.bytesOf({ ...NO_INFO, argsz: 256 });
    const { errno, bytes } = task.ioctl(fd, Type1Request.GET_INFO, asked);
    const words = new DataView(bytes!.buffer, bytes!.byteOffset, bytes!.byteLength);
    const info = Type1Info.decode(words);
    expect([errno, info.flags, info.iovaPgsizes]).toEqual([0, 3, 0x4020_1000n]);
    const ranges = [0, 1, 2, 3].map((index) => words.getBigUint64(72 + 16 + 8 * index, true));
    expect(ranges).toEqual([0n, 0xfedf_ffffn, 0xfef0_0000n, 0xffff_ffff_ffffn]);
  });

  it("takes a bigint as the number it is, and what is neither number nor bytes as EFAULT", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    const check = (argument: IoctlArgument | bigint) =>
      task.ioctl(fd, VfioRequest.CHECK_EXTENSION, argument);
    for (const extension of [3n, 2n ** 64n + 3n]) expect(check(extension)).toEqual(check(3));
    expect([check(3n).value, check(-1n).value, check(2n ** 64n - 1n).value]).toEqual([1, 0, 0]);
    for (const wrong of ["3", null, {}, [3], new DataView(new ArrayBuffer(4))] as unknown[]) {
      expect(check(wrong as IoctlArgument).errno).toBe(Errno.EFAULT);
    }
  });

  it("of another kind of file is no ioctl of VFIO, and of a closed one EBADF", () => {
    const { task } = setup();
    const pipe = task.open(new ForeignFile()).value;
    expect(task.ioctl(pipe, VfioRequest.GET_API_VERSION).errno).toBe(Errno.ENOTTY);
    task.close(pipe);
    expect(task.ioctl(pipe, VfioRequest.GET_API_VERSION).errno).toBe(Errno.EBADF);
  });

  it("attaches the groups it had before SET_IOMMU in reverse order, as list_add leaves them", () => {
    const attached: string[] = [];
    const groupTrace = {
      addDevice() {},
      removeDevice() {},
      attachDevice: (device: string) => attached.push(device),
    };
    const host = buildHost(twoNodePlan(), { groupTrace });
    const task = user();
    const fd = open(host, task, "/dev/vfio/vfio");
    for (const address of [A, B]) setContainer(task, openGroup(host, task, address), fd);
    attached.length = 0;
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.OK);
    // B: its own domain. A: its own, then blocked and B's.
    expect(attached).toEqual([B, A, A, A]);
  });

  it("lets SET_IOMMU fail as a whole: groups attached before are blocked again", () => {
    const { host, task } = setup();
    const fd = open(host, task, "/dev/vfio/vfio");
    const groups = [A, B].map((address) => openGroup(host, task, address));
    for (const group of groups) setContainer(task, group, fd);
    host.device(A).iommuDevice.attachDeferred = false;
    host.groups.of(host.device(A).iommuDevice)!.recoveryCount = 1;
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.EBUSY);
    for (const address of [A, B]) {
      const group = host.groups.of(host.device(address).iommuDevice)!;
      expect(group.domain).toBe(group.blockingDomain);
    }
    host.groups.of(host.device(A).iommuDevice)!.recoveryCount = 0;
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.OK);
  });

  it("is nothing again once its last group leaves: mappings and pins are gone", () => {
    const { host, task } = setup();
    const before = host.tablePages();
    const { fd, groups, container } = connect(host, task, [A, B]);
    expect(map(task, fd, 0x100, 16).errno).toBe(Errno.OK);
    expect(task.process.lockedPages).toBe(16);
    for (const group of groups) {
      expect(task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER).errno).toBe(Errno.OK);
    }
    expect(task.process.lockedPages).toBe(0);
    expect([container.state, container.groups]).toEqual([null, []]);
    expect(host.tablePages()).toEqual(before);
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.EINVAL);
    expect(setContainer(task, groups[0]!, fd)).toBe(Errno.OK);
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 1).errno).toBe(Errno.OK);
  });
});

describe("a device that no IOMMU serves", () => {
  const bare = () => {
    const lines: string[] = [];
    const noIommu = { enabled: true };
    const devices = [
      { address: "0000:05:00.0", unit: null },
      { address: A, unit: "dmar0" },
    ];
    const host = buildHost(twoNodePlan({ devices }), {
      noIommu,
      log: (line) => lines.push(line),
    });
    return { host, noIommu, lines };
  };
  const N = "0000:05:00.0";

  it("gets no group, unless unprotected use is switched on, which taints", () => {
    const { host, lines } = bare();
    expect(host.groupPath(N)).toBe("/dev/vfio/noiommu-1");
    expect([host.vfio.isTainted, lines.length]).toEqual([true, 1]);
    const strict = buildHost(host.plan);
    expect([strict.groupPath(N), strict.vfio.isTainted]).toEqual([null, false]);
    expect(strict.vfio.register({ iommuDevice: strict.device(N).iommuDevice })).toBe(Errno.EINVAL);
  });

  it("asks for CAP_SYS_RAWIO at every door", () => {
    const { host } = bare();
    const root = user(undefined, true);
    expect(host.vfio.open(user(), host.groupPath(N)!).errno).toBe(Errno.EPERM);
    const group = openGroup(host, root, N);
    const fd = open(host, root, "/dev/vfio/vfio");
    root.canRawIo = false;
    expect(setContainer(root, group, fd)).toBe(Errno.EPERM);
    root.canRawIo = true;
    expect(setContainer(root, group, fd)).toBe(Errno.OK);
    root.canRawIo = false;
    expect(root.ioctl(fd, VfioRequest.SET_IOMMU, 8).errno).toBe(Errno.EPERM);
    root.canRawIo = true;
    expect(root.ioctl(fd, VfioRequest.SET_IOMMU, 8).errno).toBe(Errno.OK);
    root.canRawIo = false;
    const get = () => root.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(N)).errno;
    expect(get()).toBe(Errno.EPERM);
    root.canRawIo = true;
    expect(get()).toBe(Errno.OK);
    expect(map(root, fd, 0, 1).errno).toBe(Errno.ENOTTY);
  });

  it("never shares a container with one that an IOMMU serves, nor its back end", () => {
    const { host, noIommu } = bare();
    const root = user(undefined, true);
    const fd = open(host, root, "/dev/vfio/vfio");
    const has = (extension: number) => root.ioctl(fd, VfioRequest.CHECK_EXTENSION, extension).value;
    expect([has(3), has(8)]).toEqual([1, 1]);
    const bareGroup = openGroup(host, root, N);
    const group = openGroup(host, root, A);
    expect(setContainer(root, bareGroup, fd)).toBe(Errno.OK);
    expect([has(3), has(8)]).toEqual([0, 1]);
    expect(root.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.ENODEV);
    expect(setContainer(root, group, fd)).toBe(Errno.EPERM);
    expect(root.ioctl(bareGroup, VfioRequest.GROUP_UNSET_CONTAINER).errno).toBe(Errno.OK);
    expect(setContainer(root, group, fd)).toBe(Errno.OK);
    expect(setContainer(root, bareGroup, fd)).toBe(Errno.EPERM);
    expect(root.ioctl(fd, VfioRequest.SET_IOMMU, 8).errno).toBe(Errno.ENODEV);
    noIommu.enabled = false;
    expect([has(3), has(8)]).toEqual([1, 0]);
  });

  it("leaves no group behind when its driver is unbound", () => {
    const { host } = bare();
    const device = host.vfio.groups.find((group) => group.type === "no-iommu")!.devices[0]!;
    expect(host.vfio.unregister(device)).toBe(Errno.OK);
    expect([host.groupPath(N), host.groups.of(device.iommuDevice)]).toEqual([null, null]);
  });
});

describe("a mediated device", () => {
  it("has a group without an IOMMU, maps nothing anywhere, and is told by the container", () => {
    const { host, task } = setup();
    const told: number[] = [];
    const iommuDevice = new IommuDevice({
      name: "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001",
      ops: null,
    });
    const device: VfioDevice = {
      iommuDevice,
      isEmulated: true,
      pinning: { dmaUnmap: (iovaPfn, pages) => told.push(iovaPfn, pages) },
    };
    expect(host.vfio.register(device)).toBe(Errno.OK);
    const path = `/dev/vfio/${host.vfio.groupOf(device)!.fileName}`;
    const group = open(host, task, path);
    const fd = open(host, task, "/dev/vfio/vfio");
    expect(setContainer(task, group, fd)).toBe(Errno.OK);
    expect(task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno).toBe(Errno.OK);
    expect(map(task, fd, 0x100, 16).errno).toBe(Errno.OK);
    expect(task.process.lockedPages).toBe(0);
    const name = text(iommuDevice.name);
    const opened = task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, name);
    const { type1 } = (task.descriptors.find(fd)!.operations as Container).state!;
    expect([opened.errno, type1!.devices.length]).toEqual([Errno.OK, 1]);
    task.close(opened.value);
    expect(type1!.devices.length).toBe(0);
    // With a real group the mappings are pinned; when that leaves they are charged no more.
    const real = openGroup(host, task, A);
    expect(setContainer(task, real, fd)).toBe(Errno.OK);
    expect([task.process.lockedPages, reach(host, A, 0x101)]).toEqual([16, 0x10_0101]);
    expect(task.ioctl(real, VfioRequest.GROUP_UNSET_CONTAINER).errno).toBe(Errno.OK);
    expect([task.process.lockedPages, type1!.mappings.count]).toEqual([0, 1]);
  });
});

describe("typed calls", () => {
  it("do the same without descriptors", () => {
    const { host, task } = setup();
    const container = host.vfio.createContainer();
    expect(container).toBeInstanceOf(Container);
    const group = host.vfio.groups[0]!;
    group.open(task);
    expect(container.attachGroup(group, task)).toBe(Errno.OK);
    expect(container.setIommu(task, VfioExtension.TYPE1_V2)).toBe(Errno.OK);
    expect(container.state!.type1!.domains.length).toBe(1);
    container.detachGroup(group);
    expect(container.state).toBe(null);
  });
});
