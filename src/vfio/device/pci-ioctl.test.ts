import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { viewOf } from "../../wire/layout.ts";
import { VfioTask } from "../file.ts";
import { decodeChain } from "../uapi/capability-chain.ts";
import {
  DeviceInfo,
  DeviceRequest,
  DmaBufRange,
  Feature,
  FeatureDmaBuf,
  FeatureFlag,
  FeatureHead,
  RegionInfo,
} from "./device-structs.ts";
import { VfioPciDevice } from "./pci-device.ts";
import { DmaBufFile } from "./pci-ioctl.ts";

function createDevice(): VfioPciDevice {
  return new VfioPciDevice({
    iommuDevice: new IommuDevice({ name: "0000:21:00.0", ops: null }),
    bars: [
      { pfn: 0xfe800, bytes: 0x4000 },
      null,
      { pfn: 0xf_8000_0000 / 4096, bytes: 0x4_0000_0000 },
    ],
    msixBar: 0,
  });
}

const device = createDevice();
const task = new VfioTask({ filesMax: 3 });

function regionInfo(index: number, argsz: number, bytes = argsz) {
  const argument = new Uint8Array(bytes);
  const view = viewOf(argument);
  if (bytes >= 12) {
    RegionInfo.set.argsz(view, 0, argsz);
    RegionInfo.set.index(view, 0, index);
  }
  return device.ioctl(task, DeviceRequest.GET_REGION_INFO, argument);
}

function feature(flags: number, argsz: number, data = new Uint8Array(0)) {
  const bytes = new Uint8Array(8 + data.length);
  bytes.set(FeatureHead.bytesOf({ argsz, flags }));
  bytes.set(data, 8);
  return device.ioctl(task, DeviceRequest.FEATURE, bytes);
}

function dmaBufData(head: Partial<{ regionIndex: number; flags: number; nrRanges: number }>) {
  const range = DmaBufRange.bytesOf({ offset: 0x1000n, length: 0x2000n });
  const values = { regionIndex: 0, openFlags: 0, flags: 0, nrRanges: 1, ...head };
  return Uint8Array.from([...FeatureDmaBuf.bytesOf(values), ...range]);
}

describe("GET_INFO", () => {
  it("writes as much of its structure as the buffer says it has", () => {
    const ask = (argsz: number, bytes: number) => {
      const argument = new Uint8Array(bytes).fill(0xff);
      viewOf(argument).setUint32(0, argsz, true);
      return device.ioctl(task, DeviceRequest.GET_INFO, argument);
    };
    expect(ask(15, 24).errno).toBe(Errno.EINVAL);
    expect(ask(16, 15).errno).toBe(Errno.EFAULT);
    expect(ask(24, 16).errno).toBe(Errno.EFAULT);
    const small = ask(16, 24).bytes!;
    expect(DeviceInfo.decode(viewOf(small))).toMatchObject({
      argsz: 16,
      flags: 3,
      numRegions: 9,
      numIrqs: 5,
      capOffset: 0xffff_ffff,
    });
    expect(DeviceInfo.decode(viewOf(ask(100, 100).bytes!))).toMatchObject({ argsz: 100, pad: 0 });
  });
});

describe("GET_REGION_INFO", () => {
  it("answers for a BAR as the recorded kernel did: size 0x400000000, flags 7", () => {
    const { errno, bytes } = regionInfo(2, 32);
    expect(errno).toBe(Errno.OK);
    expect(RegionInfo.decode(viewOf(bytes!))).toMatchObject({
      flags: 7,
      size: 0x4_0000_0000n,
      offset: 2n << 40n,
      capOffset: 0,
    });
  });

  it("appends the capability of the MSI-X table's BAR, or says how much room it needs", () => {
    const small = RegionInfo.decode(viewOf(regionInfo(0, 32).bytes!));
    expect(small).toMatchObject({ argsz: 40, flags: 15, capOffset: 0 });
    const { bytes } = regionInfo(0, 40);
    expect(RegionInfo.decode(viewOf(bytes!))).toMatchObject({ argsz: 40, capOffset: 32 });
    expect(decodeChain(bytes!, 32)).toMatchObject([{ id: 3, version: 1 }]);
  });

  it("refuses short structures and regions that have no number", () => {
    expect(regionInfo(0, 31, 32).errno).toBe(Errno.EINVAL);
    expect(regionInfo(0, 32, 31).errno).toBe(Errno.EFAULT);
    expect(regionInfo(0, 40, 32).errno).toBe(Errno.EFAULT);
    expect(regionInfo(9, 32).errno).toBe(Errno.EINVAL);
    expect(regionInfo(0xffff_ffff, 32).errno).toBe(Errno.EINVAL);
    expect(device.ioctl(task, DeviceRequest.GET_REGION_INFO, 5).errno).toBe(Errno.EFAULT);
  });
});

describe("DEVICE_FEATURE", () => {
  const { GET, SET, PROBE } = FeatureFlag;
  const full = FeatureHead.bytes + FeatureDmaBuf.bytes;

  it("checks its flags before its sizes", () => {
    expect(feature(Feature.DMA_BUF | GET, 7).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF | GET | (1 << 19), 100).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF | GET | SET, 100).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF | SET, 100).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF, 100).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF | GET, full - 1).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.DMA_BUF | PROBE | GET, 8).errno).toBe(Errno.OK);
    expect(feature(Feature.DMA_BUF | PROBE | GET | SET, 8).errno).toBe(Errno.EINVAL);
    expect(feature(99 | GET, 100).errno).toBe(Errno.ENOTTY);
  });

  it("refuses a dma-buf without ranges, with flags, with ranges that are not there", () => {
    const ask = (head: Parameters<typeof dmaBufData>[0]) =>
      feature(Feature.DMA_BUF | GET, full, dmaBufData(head)).errno;
    expect(ask({ nrRanges: 0 })).toBe(Errno.EINVAL);
    expect(ask({ flags: 1 })).toBe(Errno.EINVAL);
    expect(ask({ nrRanges: 2 })).toBe(Errno.EFAULT);
    expect(ask({ nrRanges: 0xffff_ffff })).toBe(Errno.ENOMEM);
    expect(ask({ regionIndex: 1 })).toBe(Errno.ENODEV);
    expect(feature(Feature.DMA_BUF | GET, full).errno).toBe(Errno.EFAULT);
  });

  it("gives a dma-buf a descriptor, whose file can be mapped from, until there is none left", () => {
    const get = () => feature(Feature.DMA_BUF | GET, full, dmaBufData({}));
    const opened = get();
    expect(opened.errno).toBe(Errno.OK);
    const file = task.descriptors.find(opened.value)!.operations as DmaBufFile;
    expect(file).toBeInstanceOf(DmaBufFile);
    expect(file.mappable.buffer.runs).toEqual([{ pfn: 0xfe801, pages: 2 }]);
    get();
    get();
    expect(get().errno).toBe(Errno.EMFILE);
    expect(task.ioctl(opened.value, 1, 0).errno).toBe(Errno.ENOTTY);
    expect(task.close(opened.value)).toBe(Errno.OK);
  });

  it("puts the device to sleep and wakes it", () => {
    expect(feature(Feature.LOW_POWER_ENTRY | SET, 8).errno).toBe(Errno.OK);
    expect(device.isAccessible).toBe(false);
    expect(feature(Feature.LOW_POWER_ENTRY | SET, 8).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.LOW_POWER_EXIT | GET, 8).errno).toBe(Errno.EINVAL);
    expect(feature(Feature.LOW_POWER_EXIT | SET, 8).errno).toBe(Errno.OK);
    expect(device.isAccessible).toBe(true);
  });
});

describe("any request with any bytes", () => {
  it("is answered, and leaves the argument as it was", () => {
    const request = fc.oneof(
      fc.constantFrom(...Object.values(DeviceRequest)),
      fc.integer({ min: 0, max: 0xffff_ffff }),
    );
    const feature = fc
      .tuple(fc.constantFrom(3, 5, 11, 12), fc.integer({ min: 0, max: 15 }))
      .map(([number, flags]) => number | (flags << 16));
    const argument = fc.oneof(
      fc.integer(),
      fc.uint8Array({ maxLength: 80 }),
      fc
        .tuple(fc.constantFrom(8, 24, 32, 40), feature, fc.uint8Array({ maxLength: 60 }))
        .map(([argsz, flags, rest]) =>
          Uint8Array.from([...FeatureHead.bytesOf({ argsz, flags: flags >>> 0 }), ...rest]),
        ),
    );
    fc.assert(
      fc.property(request, argument, (number, given) => {
        const before = typeof given === "number" ? given : given.slice();
        const { errno, bytes } = createDevice().ioctl(new VfioTask(), number, given);
        expect(errno).toBeGreaterThanOrEqual(0);
        expect(given).toEqual(before);
        if (bytes !== null) expect(bytes.length).toBe((given as Uint8Array).length);
      }),
      { numRuns: 500 },
    );
  });
});
