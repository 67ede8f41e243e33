/** Fuzzes /dev/iommu by raw bytes, and the fuzzer by a planted bug. */
import { expect, it } from "vitest";
import { AssertionError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { DmaMap, DmaUnmap, Type1Request } from "../uapi/type1.ts";
import { makeVmm, type Vmm } from "./iommufd-file.suite.ts";
import * as uapi from "./uapi.ts";
import { AttachIommufdPt, BindIommufd, CdevRequest } from "./vfio-cdev.ts";

const { IommufdRequest } = uapi;

const LIVES = 60;
const CALLS = 400;
const REQUESTS = [
  ...Object.values(IommufdRequest),
  ...Object.values(CdevRequest),
  Type1Request.GET_INFO,
  Type1Request.MAP_DMA,
  Type1Request.UNMAP_DMA,
  0x3b65,
  0x3b66,
];

/** A word that means something: a small number, a page, a pointer, an end of 64 bits. */
function word(random: Random): bigint {
  const small = BigInt(random.below(8));
  switch (random.below(6)) {
    case 0:
      return 2n ** 64n - 1n - small * 2048n;
    case 1:
      return 2n ** 63n + small * 4096n;
    case 2:
      return 0x10_0000n + small;
    case 3:
      return BigInt(random.bits32());
    default:
      return BigInt(random.below(40)) * 4096n + (random.chance(1, 8) ? small : 0n);
  }
}

/** Bytes of a request: words, most of them 32-bit numbers that may be ids or flags. */
function randomBytes(random: Random): Uint8Array {
  const bytes = new Uint8Array(4 * random.below(20) + (random.chance(1, 12) ? 1 : 0));
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 4 <= bytes.length; at += 4) {
    if (at % 8 === 0 && at >= 16 && at + 8 <= bytes.length && random.chance(3, 4)) {
      view.setBigUint64(at, word(random), true);
      at += 4;
    } else view.setUint32(at, random.chance(1, 20) ? random.bits32() : random.below(9), true);
  }
  const sizes = [8, 12, 16, 24, 32, 40, 48, bytes.length];
  if (bytes.length >= 4 && random.chance(9, 10)) view.setUint32(0, sizes[random.below(8)]!, true);
  return bytes;
}

/** A call that may well be sound. @returns its request and bytes */
function soundCall(random: Random): [number, Uint8Array] {
  const id = () => 1 + random.below(6);
  const page = () => BigInt(random.below(40)) * 4096n;
  const flags = 6 + random.below(2);
  const length = BigInt(1 + random.below(6)) * 4096n;
  switch (random.below(9)) {
    case 0: {
      const fields = { size: 12, flags: 0, outIoasId: 0 };
      return [IommufdRequest.IOAS_ALLOC, uapi.IoasAlloc.bytesOf(fields)];
    }
    case 1:
    case 2: {
      const fields = { size: 40, flags, ioasId: id(), reserved0: 0, userVa: page(), iova: page() };
      return [IommufdRequest.IOAS_MAP, uapi.IoasMap.bytesOf({ ...fields, length })];
    }
    case 3: {
      const ids = { size: 40, flags, dstIoasId: id(), srcIoasId: id() };
      const where = { length, dstIova: page(), srcIova: page() };
      return [IommufdRequest.IOAS_COPY, uapi.IoasCopy.bytesOf({ ...ids, ...where })];
    }
    case 4: {
      const fields = { size: 24, ioasId: id(), iova: page(), length: length * 4n };
      return [IommufdRequest.IOAS_UNMAP, uapi.IoasUnmap.bytesOf(fields)];
    }
    case 5:
      return [IommufdRequest.DESTROY, uapi.Destroy.bytesOf({ size: 8, id: id() })];
    case 6: {
      const fields = { size: 48, flags: 0, devId: id(), ptId: id(), outHwptId: 0, reserved0: 0 };
      const data = { dataType: 0, dataLen: 0, dataUptr: 0n, faultId: 0, reserved1: 0 };
      return [IommufdRequest.HWPT_ALLOC, uapi.HwptAlloc.bytesOf({ ...fields, ...data })];
    }
    default: {
      const fields = { argsz: 12, flags: 0, ptId: id() };
      return [CdevRequest.ATTACH_IOMMUFD_PT, AttachIommufdPt.bytesOf(fields)];
    }
  }
}

/** One life of a file. @returns what went wrong, or null, and how many calls succeeded */
function life(seed: number, spoil: (vmm: Vmm) => void = () => {}) {
  const random = new Random(seed);
  const vmm = makeVmm({ openedAs: random.chance(1, 2) ? "vfio" : "iommu" });
  const { task, memory, file } = vmm;
  for (let hole = 0; hole < 4; hole += 1) memory.holes.add(random.below(40));
  const cdevs = ["0000:10:00.0", "0000:90:00.0"].map((name) => vmm.cdev(name).open(task).value);
  const bind = BindIommufd.bytesOf({ argsz: 16, flags: 0, iommufd: vmm.fd, outDevid: 0 });
  for (const fd of cdevs) task.ioctl(fd, CdevRequest.BIND_IOMMUFD, bind);
  let successes = 0;
  try {
    for (let index = 0; index < CALLS; index += 1) {
      const [sound, soundBytes] = soundCall(random);
      const isSound = random.chance(1, 2);
      const request = isSound ? sound : REQUESTS[random.below(REQUESTS.length)]!;
      const wild = random.chance(1, 30) ? random.bits32() : randomBytes(random);
      const argument = isSound ? soundBytes : wild;
      const isDevice = isSound ? request === CdevRequest.ATTACH_IOMMUFD_PT : random.chance(1, 4);
      const fd = isDevice ? cdevs[random.below(2)]! : vmm.fd;
      const shown = typeof argument === "number" ? null : argument.slice();
      const { errno, bytes } = task.ioctl(fd, request, argument);
      if (errno === 0) successes += 1;
      if (shown !== null && String(shown) !== String(argument))
        return { wrong: "input", successes };
      if (errno !== 0 && bytes !== null && !answersErrors(request)) {
        return { wrong: `bytes after errno ${errno} of ${request}`, successes };
      }
      if (file.iommufd.objects.count > CALLS) return { wrong: "objects", successes };
    }
    spoil(vmm);
    task.descriptors.closeAll();
    if (memory.pins.size > 0) return { wrong: "pins", successes };
    if (task.process.lockedPages + file.iommufd.caller.user.lockedPages > 0) {
      return { wrong: "charges", successes };
    }
    if (file.iommufd.objects.count > 0) return { wrong: "left objects", successes };
  } catch (error) {
    const kind = error instanceof AssertionError ? "assertion" : "exception";
    return { wrong: `${kind}: ${(error as Error).message}`, successes };
  }
  return { wrong: null, successes };
}

/** IOVA_RANGES tells the count it needs, UNMAP_DMA what it unmapped, also when they fail. */
function answersErrors(request: number): boolean {
  return request === IommufdRequest.IOAS_IOVA_RANGES || request === Type1Request.UNMAP_DMA;
}

it(`${LIVES} lives of ${CALLS} wild ioctls neither crash nor leave anything behind`, () => {
  let successes = 0;
  for (let seed = 1; seed <= LIVES; seed += 1) {
    const result = life(seed);
    expect(result.wrong, `seed ${seed}`).toBe(null);
    successes += result.successes;
  }
  // Many get through, so that there is something to leave behind.
  expect(successes).toBeGreaterThan(LIVES * 50);
});

it("a pin that is forgotten on the way is found", () => {
  const result = life(3, ({ memory }) => {
    memory.pins.set(1, 1);
  });
  expect(result.wrong).toBe("pins");
});

it("a container keeps nothing when wild maps and unmaps of it end", () => {
  for (let seed = 1; seed <= LIVES; seed += 1) {
    const random = new Random(seed);
    const { task, memory, file, fd } = makeVmm({ openedAs: "vfio" });
    const { iommufd } = file;
    iommufd.vfioIoas = iommufd.ioas(iommufd.ioasAlloc().ioasId);
    task.ioctl(fd, 0x3b66, random.chance(1, 2) ? 1 : 3);
    for (let index = 0; index < CALLS; index += 1) {
      const range = { flags: random.below(4), iova: word(random), size: word(random) };
      const unmap = DmaUnmap.bytesOf({ argsz: 24, ...range });
      const map = DmaMap.bytesOf({ argsz: 32, ...range, vaddr: word(random) });
      if (random.chance(1, 3)) task.ioctl(fd, Type1Request.UNMAP_DMA, unmap);
      else task.ioctl(fd, Type1Request.MAP_DMA, map);
    }
    task.close(fd);
    expect([memory.pins.size, iommufd.objects.count], `seed ${seed}`).toEqual([0, 0]);
  }
});
