import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { unuseDefaultDomain, useDefaultDomain } from "../iommu/attach.ts";
import type { VfioDevice } from "./device-file.ts";
import { ForeignFile } from "./file.ts";
import { connect } from "./host/connect.ts";
import { buildHost } from "./host/host.ts";
import {
  int,
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
import { VfioRequest } from "./requests.ts";

const A = "0000:10:00.0";
const B = "0000:90:00.0";
const setup = () => {
  const host = buildHost(twoNodePlan());
  const task = user();
  return { host, task };
};

describe("closing files", () => {
  it("in any order leaves nothing behind, and open devices keep their group and container", () => {
    const orders = [
      [0, 1, 2],
      [0, 2, 1],
      [1, 0, 2],
      [1, 2, 0],
      [2, 0, 1],
      [2, 1, 0],
    ];
    for (const order of orders) {
      const { host, task } = setup();
      const before = host.tablePages();
      const { fd, groups } = connect(host, task, [A]);
      map(task, fd, 0x100, 16);
      const device = task.ioctl(groups[0]!, VfioRequest.GROUP_GET_DEVICE_FD, text(A)).value;
      const files = [fd, groups[0]!, device];
      for (const [step, index] of order.entries()) {
        const isDeviceOpen = !order.slice(0, step).includes(2);
        if (isDeviceOpen) expect(reach(host, A, 0x101)).toBe(0x10_0101);
        task.close(files[index]!);
      }
      expect(reach(host, A, 0x101)).toBe(-1);
      expect([task.process.lockedPages, task.descriptors.count]).toEqual([0, 0]);
      expect(host.tablePages()).toEqual(before);
      expect(host.vfio.groups.map((group) => group.isOpen)).toEqual([false, false, false, false]);
    }
  });

  it("of a duplicate changes nothing until the last descriptor is gone", () => {
    const { host, task } = setup();
    const group = openGroup(host, task, A);
    const copy = task.descriptors.duplicate(group).value;
    task.close(group);
    expect(task.ioctl(copy, VfioRequest.GROUP_GET_STATUS, status()).errno).toBe(Errno.OK);
    expect(host.vfio.open(task, host.groupPath(A)!).errno).toBe(Errno.EBUSY);
    task.close(copy);
    expect(host.vfio.open(task, host.groupPath(A)!).errno).toBe(Errno.OK);
  });

  it("of all of a process's files gives every group back to its default domain", () => {
    const { host, task } = setup();
    const { fd } = connect(host, task, [A, B]);
    map(task, fd, 0x100, 16);
    task.descriptors.closeAll();
    for (const group of host.groups.all) expect(group.domain).toBe(group.defaultDomain);
  });
});

describe("a group", () => {
  it("opens once, and not at all without devices of VFIO", () => {
    const { host, task } = setup();
    openGroup(host, task, A);
    expect(host.vfio.open(task, host.groupPath(A)!).errno).toBe(Errno.EBUSY);
    expect(host.vfio.open(user(), host.groupPath(A)!).errno).toBe(Errno.EBUSY);
    expect(host.vfio.open(task, "/dev/vfio/99").errno).toBe(Errno.ENOENT);
    expect(host.vfio.open(task, "/dev/vfio/../vfio").errno).toBe(Errno.ENOENT);
    const group = host.vfio.groups[2]!;
    group.cdevOpenCount = 1;
    expect(group.open(task).errno).toBe(Errno.EBUSY);
  });

  it("tells its status: viable until a kernel driver has a member, set in a container", () => {
    const { host, task } = setup();
    const fd = openGroup(host, task, A);
    const flags = () => {
      const { bytes } = task.ioctl(fd, VfioRequest.GROUP_GET_STATUS, status());
      return new DataView(bytes!.buffer).getUint32(4, true);
    };
    const iommuGroup = host.groups.of(host.device(A).iommuDevice)!;
    expect(flags()).toBe(1);
    expect(useDefaultDomain(iommuGroup)).toBe(Errno.OK);
    expect(flags()).toBe(0);
    unuseDefaultDomain(iommuGroup);
    setContainer(task, fd, open(host, task, "/dev/vfio/vfio"));
    expect(flags()).toBe(3);
    const { errno } = task.ioctl(fd, VfioRequest.GROUP_GET_STATUS, status(7));
    expect(errno).toBe(Errno.EINVAL);
  });

  it("refuses arguments that cannot be read, and ioctls that it does not know", () => {
    const { host, task } = setup();
    const fd = openGroup(host, task, A);
    const errnoOf = (request: number, argument: number | Uint8Array) =>
      task.ioctl(fd, request, argument).errno;
    const { GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD } = VfioRequest;
    expect(errnoOf(GROUP_GET_STATUS, 0)).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_GET_STATUS, new Uint8Array(7))).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_SET_CONTAINER, 3)).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_SET_CONTAINER, new Uint8Array(3))).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_GET_DEVICE_FD, 0)).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_GET_DEVICE_FD, new Uint8Array(9).fill(65))).toBe(Errno.EFAULT);
    expect(errnoOf(GROUP_GET_DEVICE_FD, new Uint8Array(5000).fill(65))).toBe(Errno.EINVAL);
    expect(errnoOf(0x3b6b, 0)).toBe(Errno.ENOTTY);
  });

  it("row 40: with a kernel driver bound to a member is EPERM", () => {
    const slot = { unit: "dmar0", isMultifunction: true } as const;
    const host = buildHost(
      twoNodePlan({
        devices: [
          { address: "0000:10:00.0", ...slot },
          { address: "0000:10:00.1", ...slot, driver: "kernel" },
        ],
      }),
    );
    const task = user();
    const fd = openGroup(host, task, A);
    expect(setContainer(task, fd, open(host, task, "/dev/vfio/vfio"))).toBe(Errno.EPERM);
  });

  it("row 41: set already is EINVAL, a pipe EBADFD, a closed descriptor EBADF", () => {
    const { host, task } = setup();
    const group = openGroup(host, task, A);
    const container = open(host, task, "/dev/vfio/vfio");
    const pipe = task.open(new ForeignFile()).value;
    expect(setContainer(task, group, pipe)).toBe(Errno.EBADFD);
    expect(setContainer(task, group, 77)).toBe(Errno.EBADF);
    expect(setContainer(task, group, -1)).toBe(Errno.EBADF);
    expect(setContainer(task, group, container)).toBe(Errno.OK);
    expect(setContainer(task, group, container)).toBe(Errno.EINVAL);
    // The descriptor is looked at first, then what the group has, then what the file is.
    expect(setContainer(task, group, 77)).toBe(Errno.EBADF);
    expect(setContainer(task, group, pipe)).toBe(Errno.EINVAL);
  });

  it("row 39: of a device with a firmware range that must stay mapped is EINVAL", () => {
    const host = buildHost(
      twoNodePlan({
        devices: [{ address: A, unit: "dmar0", directRanges: [{ start: 0n, last: 0xfffffn }] }],
      }),
    );
    const task = user();
    const fd = openGroup(host, task, A);
    expect(setContainer(task, fd, open(host, task, "/dev/vfio/vfio"))).toBe(Errno.EINVAL);
    const group = host.groups.of(host.device(A).iommuDevice)!;
    expect([group.domain === group.defaultDomain, group.ownerCount]).toEqual([true, 0]);
  });

  it("row 43: is not taken out of its container while a device is open, however often", () => {
    const { host, task } = setup();
    const { groups } = connect(host, task, [A]);
    const unset = () => task.ioctl(groups[0]!, VfioRequest.GROUP_UNSET_CONTAINER).errno;
    const get = () => task.ioctl(groups[0]!, VfioRequest.GROUP_GET_DEVICE_FD, text(A));
    const fds = [get().value, get().value];
    expect(unset()).toBe(Errno.EBUSY);
    task.close(fds[0]!);
    expect(unset()).toBe(Errno.EBUSY);
    task.close(fds[1]!);
    expect(unset()).toBe(Errno.OK);
    expect(unset()).toBe(Errno.EINVAL);
  });

  it("gives a device only by its name, with a container, after SET_IOMMU", () => {
    const { host, task } = setup();
    const group = openGroup(host, task, A);
    const get = (name: string) =>
      task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(name)).errno;
    const container = open(host, task, "/dev/vfio/vfio");
    expect(get("0000:10:00.1")).toBe(Errno.ENODEV);
    expect(get(B)).toBe(Errno.ENODEV);
    expect(get(A)).toBe(Errno.EINVAL);
    setContainer(task, group, container);
    expect(get(A)).toBe(Errno.EINVAL);
    task.ioctl(container, VfioRequest.SET_IOMMU, 3);
    expect(get(`${A} vf_token=0`)).toBe(Errno.EINVAL);
    expect(get(`${A}x`)).toBe(Errno.ENODEV);
    expect([get(A), get(`${A} `)]).toEqual([Errno.OK, Errno.OK]);
  });

  it("undoes the opening of a device that its driver refuses", () => {
    const { host, task } = setup();
    const { groups } = connect(host, task, [A]);
    const group = host.vfio.groups[0]!;
    let calls = 0;
    const { iommuDevice } = host.device(A);
    const picky: VfioDevice = {
      iommuDevice,
      open: () => {
        calls += 1;
        return calls === 1 ? Errno.EIO : Errno.OK;
      },
    };
    group.devices.splice(0, 1, picky);
    const get = () => task.ioctl(groups[0]!, VfioRequest.GROUP_GET_DEVICE_FD, text(A)).errno;
    expect(get()).toBe(Errno.EIO);
    expect(group.openDevices).toBe(0);
    expect([get(), get(), calls]).toEqual([Errno.OK, Errno.OK, 2]);
    expect(host.vfio.unregister(picky)).toBe(Errno.EBUSY);
  });

  it("whose last device goes leaves its container and cannot be used any more", () => {
    const { host, task } = setup();
    const { groups, fd, container } = connect(host, task, [A]);
    map(task, fd, 0x100, 16);
    const device = host.vfio.groups[0]!.devices[0]!;
    expect(host.vfio.unregister(device)).toBe(Errno.OK);
    expect([container.state, task.process.lockedPages]).toEqual([null, 0]);
    expect(setContainer(task, groups[0]!, fd)).toBe(Errno.ENODEV);
    expect(task.ioctl(groups[0]!, VfioRequest.GROUP_GET_STATUS, status()).errno).toBe(Errno.ENODEV);
    task.close(groups[0]!);
    expect(host.groupPath(A)).toBe(null);
    expect(host.vfio.register(device)).toBe(Errno.OK);
    expect(host.vfio.open(task, host.groupPath(A)!).errno).toBe(Errno.OK);
  });

  it("has no descriptor left over where the process may open no more", () => {
    const { host } = setup();
    const task = user();
    while (!task.descriptors.isFull) task.open(new ForeignFile());
    expect(host.vfio.open(task, host.groupPath(A)!).errno).toBe(Errno.EMFILE);
    expect(host.vfio.open(task, "/dev/vfio/vfio").errno).toBe(Errno.EMFILE);
    task.close(5);
    const group = openGroup(host, task, A);
    const errno = task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(A)).errno;
    expect([group, errno]).toEqual([5, Errno.EMFILE]);
    expect(task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, int(group)).errno).toBe(Errno.EBADFD);
  });
});
