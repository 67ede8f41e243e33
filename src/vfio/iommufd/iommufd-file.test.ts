import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { viewOf } from "../../wire/layout.ts";
import { text } from "../host/world.suite.ts";
import { VfioRequest } from "../requests.ts";
import { FaultFile } from "./fault-file.ts";
import { BUFFER, makeVmm, type Vmm } from "./iommufd-file.suite.ts";
import * as uapi from "./uapi.ts";
import { AttachIommufdPt, BindIommufd, CdevRequest, DetachIommufdPt } from "./vfio-cdev.ts";

const { IommufdRequest } = uapi;
const A = "0000:10:00.0";
const B = "0000:90:00.0";
const FIXED = 7;

function call(vmm: Vmm, request: number, bytes: Uint8Array, fd = vmm.fd) {
  return vmm.task.ioctl(fd, request, bytes);
}

function ioasAlloc(vmm: Vmm): number {
  const bytes = uapi.IoasAlloc.bytesOf({ size: 12, flags: 0, outIoasId: 0 });
  const { errno, bytes: out } = call(vmm, IommufdRequest.IOAS_ALLOC, bytes);
  expect(errno).toBe(Errno.OK);
  return uapi.IoasAlloc.get.outIoasId(viewOf(out!), 0);
}

/** Opens, binds and attaches a device. */
function device(vmm: Vmm, address: string, ptId: number): { fd: number; devId: number } {
  const fd = vmm.cdev(address).open(vmm.task).value;
  const bind = BindIommufd.bytesOf({ argsz: 16, flags: 0, iommufd: vmm.fd, outDevid: 0 });
  const bound = call(vmm, CdevRequest.BIND_IOMMUFD, bind, fd);
  expect(bound.errno).toBe(Errno.OK);
  const attach = AttachIommufdPt.bytesOf({ argsz: 12, flags: 0, ptId });
  expect(call(vmm, CdevRequest.ATTACH_IOMMUFD_PT, attach, fd).errno).toBe(Errno.OK);
  return { fd, devId: BindIommufd.get.outDevid(viewOf(bound.bytes!), 0) };
}

const map = (ioasId: number, iova: bigint, length = 0x4000n) =>
  uapi.IoasMap.bytesOf({
    ...{ size: 40, flags: FIXED, ioasId, reserved0: 0 },
    ...{ userVa: iova, length, iova },
  });

describe("structures of /dev/iommu", () => {
  it("have the sizes and request numbers of the header", () => {
    const sizes = Object.fromEntries(
      Object.values(uapi)
        .filter((each) => typeof each === "object" && "bytes" in each && "name" in each)
        .map((each) => [each.name, each.bytes]),
    );
    expect(sizes).toMatchObject({
      iommu_destroy: 8,
      iommu_ioas_alloc: 12,
      iommu_ioas_iova_ranges: 32,
      iommu_ioas_map: 40,
      iommu_ioas_map_file: 40,
      iommu_ioas_copy: 40,
      iommu_ioas_unmap: 24,
      iommu_option: 24,
      iommu_hwpt_alloc: 48,
      iommu_hwpt_pgfault: 40,
      iommu_hwpt_page_response: 8,
    });
    expect([IommufdRequest.DESTROY, IommufdRequest.HW_QUEUE_ALLOC]).toEqual([0x3b80, 0x3b94]);
  });

  it("may be longer if what is behind is zero (E2BIG), not shorter than ever (EINVAL)", () => {
    const vmm = makeVmm();
    const request = IommufdRequest.IOAS_ALLOC;
    const sized = (size: number, length: number) => {
      const bytes = new Uint8Array(length);
      viewOf(bytes).setUint32(0, size, true);
      return bytes;
    };
    expect(call(vmm, request, new Uint8Array(3)).errno).toBe(Errno.EFAULT);
    expect(call(vmm, request, sized(11, 12)).errno).toBe(Errno.EINVAL);
    expect(call(vmm, request, sized(12, 11)).errno).toBe(Errno.EFAULT);
    expect(call(vmm, request, sized(2 ** 32 - 1, 40)).errno).toBe(Errno.EFAULT);
    const longer = sized(20, 20);
    longer[19] = 1;
    expect(call(vmm, request, longer).errno).toBe(Errno.E2BIG);
    longer[19] = 0;
    const { errno, bytes } = call(vmm, request, longer);
    expect([errno, bytes!.length]).toEqual([Errno.OK, 20]);
    // 12 bytes have always been there; of newer fields those left out are zero.
    expect(call(vmm, IommufdRequest.HWPT_ALLOC, sized(24, 24)).errno).toBe(Errno.ENOENT);
    expect(call(vmm, IommufdRequest.HWPT_ALLOC, sized(23, 24)).errno).toBe(Errno.EINVAL);
  });

  it("with reserved fields or unknown flags set are EOPNOTSUPP; unknown requests ENOTTY", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const bad = map(ioasId, 0x1_0000n);
    uapi.IoasMap.set.reserved0(viewOf(bad), 0, 1);
    expect(call(vmm, IommufdRequest.IOAS_MAP, bad).errno).toBe(Errno.EOPNOTSUPP);
    const flagged = map(ioasId, 0x1_0000n);
    uapi.IoasMap.set.flags(viewOf(flagged), 0, 8);
    expect(call(vmm, IommufdRequest.IOAS_MAP, flagged).errno).toBe(Errno.EOPNOTSUPP);
    const none = map(ioasId, 0x1_0000n);
    uapi.IoasMap.set.flags(viewOf(none), 0, 1);
    expect(call(vmm, IommufdRequest.IOAS_MAP, none).errno).toBe(Errno.EINVAL);
    expect(call(vmm, 0x3b95, new Uint8Array(64)).errno).toBe(Errno.ENOTTY);
    expect(call(vmm, 0x4b80, new Uint8Array(64)).errno).toBe(Errno.ENOTTY);
    const viommu = new Uint8Array(64);
    viewOf(viommu).setUint32(0, 64, true);
    expect(call(vmm, IommufdRequest.VIOMMU_ALLOC, viommu).errno).toBe(Errno.EOPNOTSUPP);
    expect(vmm.task.ioctl(vmm.fd, IommufdRequest.IOAS_ALLOC, 5).errno).toBe(Errno.EFAULT);
  });

  it("with lengths and IOVAs at the end of 64 bits are EOVERFLOW, not wrapped", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const errnoOf = (iova: bigint, length: bigint) =>
      call(vmm, IommufdRequest.IOAS_MAP, map(ioasId, iova, length)).errno;
    const top = 2n ** 64n - 1n;
    expect(errnoOf(top, 1n)).toBe(Errno.EOVERFLOW);
    expect(errnoOf(0x1000n, top)).toBe(Errno.EOVERFLOW);
    expect(errnoOf(top - 0xfffn, 0x2000n)).toBe(Errno.EOVERFLOW);
    expect(errnoOf(0x1000n, 0n)).toBe(Errno.EINVAL);
    expect(errnoOf(0x1000n, 2n ** 63n)).toBe(Errno.OK);
    expect(errnoOf(2n ** 63n + 0x1000n, 2n ** 62n)).toBe(Errno.OK);
  });
});

describe("/dev/iommu by ioctl", () => {
  it("tells ranges as far as there is room, and how many there are (EMSGSIZE)", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    device(vmm, A, ioasId);
    const ask = (numIovas: number, allowedIovas = BUFFER) => {
      const fields = { size: 32, ioasId, numIovas, reserved0: 0, outIovaAlignment: 0n };
      const bytes = uapi.IoasIovaRanges.bytesOf({ ...fields, allowedIovas });
      const reply = call(vmm, IommufdRequest.IOAS_IOVA_RANGES, bytes);
      const out = reply.bytes === null ? null : uapi.IoasIovaRanges.decode(viewOf(reply.bytes));
      return [reply.errno, out?.numIovas, out?.outIovaAlignment];
    };
    expect(ask(1)).toEqual([Errno.EMSGSIZE, 2, 4096n]);
    const { bytes } = vmm.buffer;
    expect(uapi.IovaRange.decode(viewOf(bytes))).toMatchObject({ start: 0n, last: 0xfedf_ffffn });
    expect(bytes.subarray(16, 32).every((byte) => byte === 0)).toBe(true);
    expect(ask(2)).toEqual([Errno.OK, 2, 4096n]);
    const second = { start: 0xfef0_0000n, last: 2n ** 48n - 1n };
    expect(uapi.IovaRange.decode(viewOf(bytes), 16)).toMatchObject(second);
    expect(ask(2, 5n)[0]).toBe(Errno.EFAULT);
    expect(ask(0, 0n)).toEqual([Errno.EMSGSIZE, 2, 4096n]);
  });

  it("takes allowed ranges from memory, judging those that are there before EFAULT", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const allow = (numIovas: number) => {
      const fields = { size: 24, ioasId, numIovas, reserved0: 0, allowedIovas: BUFFER };
      const bytes = uapi.IoasAllowIovas.bytesOf(fields);
      return call(vmm, IommufdRequest.IOAS_ALLOW_IOVAS, bytes).errno;
    };
    for (let index = 0; index < 16; index += 1) {
      const range = { start: BigInt(index) << 20n, last: (BigInt(index) << 20n) + 0xfffn };
      uapi.IovaRange.encode(range, viewOf(vmm.buffer.bytes), index * 16);
    }
    expect(allow(16)).toBe(Errno.OK);
    expect(allow(17)).toBe(Errno.EFAULT);
    uapi.IovaRange.encode({ start: 9n, last: 9n }, viewOf(vmm.buffer.bytes), 32);
    expect(allow(17)).toBe(Errno.EINVAL);
    expect(vmm.file.iommufd.ioas(ioasId)!.ioas.space.allowed).toHaveLength(16);
  });

  it("maps and unmaps with the structures written back", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const { fd } = device(vmm, A, ioasId);
    const bytes = map(ioasId, 0x1_0000n);
    uapi.IoasMap.set.flags(viewOf(bytes), 0, 6);
    const mapped = call(vmm, IommufdRequest.IOAS_MAP, bytes);
    const iova = uapi.IoasMap.get.iova(viewOf(mapped.bytes!), 0);
    expect([mapped.errno, iova]).toEqual([Errno.OK, 0x4000n]);
    expect(vmm.memory.pins.size).toBe(4);
    const unmap = uapi.IoasUnmap.bytesOf({ size: 24, ioasId, iova: 0n, length: 2n ** 64n - 1n });
    const unmapped = call(vmm, IommufdRequest.IOAS_UNMAP, unmap);
    expect(uapi.IoasUnmap.get.length(viewOf(unmapped.bytes!), 0)).toBe(0x4000n);
    expect(vmm.memory.pins.size).toBe(0);
    vmm.task.close(fd);
    vmm.task.close(vmm.fd);
    expect(vmm.file.iommufd.objects.count).toBe(0);
  });

  it("gives a fault object a file, which keeps both (EBUSY), or EMFILE and nothing", () => {
    const vmm = makeVmm();
    const bytes = uapi.FaultAlloc.bytesOf({ size: 16, flags: 0, outFaultId: 0, outFaultFd: 0 });
    const { errno, bytes: out } = call(vmm, IommufdRequest.FAULT_QUEUE_ALLOC, bytes);
    expect(errno).toBe(Errno.OK);
    const { outFaultId, outFaultFd } = uapi.FaultAlloc.decode(viewOf(out!));
    expect(vmm.task.descriptors.find(outFaultFd)!.operations).toBeInstanceOf(FaultFile);
    const destroy = uapi.Destroy.bytesOf({ size: 8, id: outFaultId });
    expect(call(vmm, IommufdRequest.DESTROY, destroy).errno).toBe(Errno.EBUSY);
    vmm.task.close(outFaultFd);
    expect(call(vmm, IommufdRequest.DESTROY, destroy).errno).toBe(Errno.OK);
    expect(call(vmm, IommufdRequest.DESTROY, destroy).errno).toBe(Errno.ENOENT);
    while (!vmm.task.descriptors.isFull) vmm.cdev(A).open(vmm.task);
    expect(call(vmm, IommufdRequest.FAULT_QUEUE_ALLOC, bytes).errno).toBe(Errno.EMFILE);
    expect(vmm.file.iommufd.objects.count).toBe(0);
  });

  it("makes no table for dirty tracking where hardware notes no writes (EOPNOTSUPP)", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const { devId } = device(vmm, A, ioasId);
    const alloc = {
      ...{ size: 48, devId, ptId: ioasId, outHwptId: 0, reserved0: 0, dataType: 0, dataLen: 0 },
      ...{ dataUptr: 0n, faultId: 0, reserved1: 0, flags: uapi.HwptFlag.DIRTY_TRACKING },
    };
    const bytes = uapi.HwptAlloc.bytesOf(alloc);
    expect(call(vmm, IommufdRequest.HWPT_ALLOC, bytes).errno).toBe(Errno.EOPNOTSUPP);
  });
});

describe("a device's own file", () => {
  it("does nothing before it is bound, and is bound once (EINVAL)", () => {
    const vmm = makeVmm();
    const fd = vmm.cdev(A).open(vmm.task).value;
    const detach = DetachIommufdPt.bytesOf({ argsz: 8, flags: 0 });
    expect(call(vmm, CdevRequest.DETACH_IOMMUFD_PT, detach, fd).errno).toBe(Errno.EINVAL);
    const bind = (iommufd: number, flags = 0, argsz = 16) =>
      call(
        vmm,
        CdevRequest.BIND_IOMMUFD,
        BindIommufd.bytesOf({ argsz, flags, iommufd, outDevid: 0 }),
        fd,
      ).errno;
    expect(bind(vmm.fd, 0, 15)).toBe(Errno.EINVAL);
    expect(bind(vmm.fd, 2)).toBe(Errno.EINVAL);
    expect(bind(2 ** 32 - 1)).toBe(Errno.EINVAL);
    expect(bind(99)).toBe(Errno.EBADF);
    expect(bind(fd)).toBe(Errno.EBADFD);
    expect(bind(vmm.fd)).toBe(Errno.OK);
    expect(bind(vmm.fd)).toBe(Errno.EINVAL);
    expect(call(vmm, CdevRequest.DETACH_IOMMUFD_PT, detach, fd).errno).toBe(Errno.OK);
    const other = vmm.cdev(A).open(vmm.task).value;
    const again = BindIommufd.bytesOf({ argsz: 16, flags: 0, iommufd: vmm.fd, outDevid: 0 });
    expect(call(vmm, CdevRequest.BIND_IOMMUFD, again, other).errno).toBe(Errno.EINVAL);
  });

  it("and the file of its group keep each other out (EBUSY)", () => {
    const vmm = makeVmm();
    const { task, host } = vmm;
    const path = host.groupPath(A)!;
    const { fd } = device(vmm, A, ioasAlloc(vmm));
    expect(host.vfio.open(task, path).errno).toBe(Errno.EBUSY);
    task.close(fd);
    const group = host.vfio.open(task, path);
    expect(group.errno).toBe(Errno.OK);
    const cdev = vmm.cdev(A).open(task).value;
    const bind = BindIommufd.bytesOf({ argsz: 16, flags: 0, iommufd: vmm.fd, outDevid: 0 });
    expect(call(vmm, CdevRequest.BIND_IOMMUFD, bind, cdev).errno).toBe(Errno.EBUSY);
  });

  it("keeps the iommufd alive: closing it last ends everything", () => {
    const vmm = makeVmm();
    const ioasId = ioasAlloc(vmm);
    const { fd } = device(vmm, B, ioasId);
    call(vmm, IommufdRequest.IOAS_MAP, map(ioasId, 0x1_0000n));
    vmm.task.close(vmm.fd);
    expect(vmm.memory.pins.size).toBe(4);
    vmm.task.close(fd);
    expect([vmm.memory.pins.size, vmm.file.iommufd.objects.count]).toEqual([0, 0]);
    const group = vmm.host.groups.of(vmm.host.device(B).iommuDevice)!;
    expect(group.domain).toBe(group.defaultDomain);
  });
});

describe("an iommufd as a container", () => {
  it("binds and attaches a device when it is opened, and gives it back when it is closed", () => {
    const vmm = makeVmm({ openedAs: "vfio" });
    const { task, host } = vmm;
    const group = host.vfio.open(task, host.groupPath(A)!).value;
    const container = new Uint8Array(4);
    viewOf(container).setInt32(0, vmm.fd, true);
    expect(task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, container).errno).toBe(Errno.OK);
    const { vfioIoas } = vmm.file.iommufd;
    expect(vfioIoas!.id).toBe(1);
    const opened = task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(A));
    expect([opened.errno, vfioIoas!.tables.length]).toEqual([Errno.OK, 1]);
    const vfioIoasGet = uapi.VfioIoas.bytesOf({ size: 12, ioasId: 0, op: 0, reserved0: 0 });
    const got = call(vmm, IommufdRequest.VFIO_IOAS, vfioIoasGet);
    expect(uapi.VfioIoas.get.ioasId(viewOf(got.bytes!), 0)).toBe(1);
    task.close(opened.value);
    expect(vfioIoas!.tables).toHaveLength(0);
    task.close(group);
    task.close(vmm.fd);
    expect(vmm.file.iommufd.objects.count).toBe(0);
  });

  it("refuses to open a device once its IOAS is gone (ENODEV)", () => {
    const vmm = makeVmm({ openedAs: "vfio" });
    const { task, host } = vmm;
    const group = host.vfio.open(task, host.groupPath(A)!).value;
    const container = new Uint8Array(4);
    viewOf(container).setInt32(0, vmm.fd, true);
    task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, container);
    const destroy = uapi.Destroy.bytesOf({ size: 8, id: 1 });
    expect(call(vmm, IommufdRequest.DESTROY, destroy).errno).toBe(Errno.OK);
    const open = task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(A));
    expect(open.errno).toBe(Errno.ENODEV);
    expect(vmm.file.iommufd.objects.count).toBe(0);
  });
});
