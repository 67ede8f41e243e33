/** The device at its virtqueues: V16, V17, V19, V28, V87, V120–V122, V133, V145. */
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { viewOf } from "../../wire/layout.ts";
import { DeviceQueue } from "../virtqueue-device.ts";
import { DriverQueue } from "../virtqueue-driver.ts";
import { layOutAreas } from "../virtqueue-layout.ts";
import { SegmentList } from "../virtqueue-segments.ts";
import { VirtioIommuDevice } from "./device.ts";
import { type IommuConfig, X86_MSI_REGION } from "./device-config.ts";
import { IommuQueues } from "./device-queue.ts";
import { attachBytes, mapBytes, unmapBytes } from "./device-rig.suite.ts";
import { FaultRecord, FEATURES_ALL, ProbeRequest, RequestType, Status } from "./protocol.ts";

const SIZE = 128;
const BUFFERS = 0x8_0000;
const BUFFER_BYTES = 0x1000;

/** A device, its two queues, and a driver that writes requests into memory. */
class Bench {
  readonly memory = new GuestMemory();
  readonly device: VirtioIommuDevice;
  readonly queues: IommuQueues;
  readonly requests: DriverQueue;
  readonly events: DriverQueue;
  /** Where the next buffer goes; a slot for each request. */
  #next = 0;

  constructor(settings: Partial<IommuConfig> = {}, indirect = false) {
    this.memory.addRegion({ start: 0, bytes: 0x20_0000 });
    const reserved = [X86_MSI_REGION];
    this.device = new VirtioIommuDevice({ endpoints: [{ id: 8, reserved }], ...settings });
    this.device.negotiate(FEATURES_ALL);
    const [requestSide, eventSide] = [0, 1].map((index) => {
      const areas = layOutAreas(index * 0x1_0000, SIZE);
      const table = { start: 0x4_0000 + index * 0x1_0000, entries: 64 };
      const driver = new DriverQueue(this.memory, {
        areas,
        eventIndex: true,
        indirect: indirect ? table : null,
        callbacks: true,
      });
      const queue = new DeviceQueue(this.memory, SIZE);
      queue.enable(areas, { indirect, eventIndex: true });
      queue.isLive = true;
      return { driver, queue };
    });
    this.requests = requestSide!.driver;
    this.events = eventSide!.driver;
    this.queues = new IommuQueues(this.device, requestSide!.queue, eventSide!.queue);
  }

  /** Offers a request in pieces of `piece` bytes. @returns where its writable part lies */
  offer(request: Uint8Array, writableBytes: number, piece = 4096): number {
    const at = BUFFERS + this.#next * BUFFER_BYTES;
    this.#next += 1;
    for (const [index, byte] of request.entries()) this.memory.writeU8(at + index, byte);
    const answer = at + 0x800;
    for (let index = 0; index < writableBytes; index += 1)
      this.memory.writeU8(answer + index, 0xaa);
    const list = new SegmentList();
    for (let from = 0; from < request.length; from += piece)
      list.addReadable(at + from, Math.min(piece, request.length - from));
    for (let from = 0; from < writableBytes; from += piece)
      list.addWritable(answer + from, Math.min(piece, writableBytes - from));
    expect(this.requests.add(list)).toBeGreaterThanOrEqual(0);
    return answer;
  }

  /** Offers a buffer for a fault record. */
  offerEvent(bytes: number): number {
    const at = BUFFERS + this.#next * BUFFER_BYTES;
    this.#next += 1;
    const list = new SegmentList();
    list.addWritable(at, bytes);
    this.events.add(list);
    return at;
  }

  bytes(at: number, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, index) => this.memory.readU8(at + index));
  }

  /** Used lengths of what came back, in order. */
  used(queue = this.requests): number[] {
    const lengths: number[] = [];
    while (queue.getUsed() >= 0) lengths.push(queue.usedLength);
    return lengths;
  }

  fault(address: number): void {
    this.device.translate(8, address, 0, 1, 1, { segment() {} });
  }
}

const probe = ProbeRequest.bytesOf({ type: RequestType.PROBE, endpoint: 8 });

describe("the request queue", () => {
  it.each([
    ["direct", false],
    ["indirect", true],
  ])(
    "answers requests in order, with their used lengths, by %s descriptors (V28)",
    (_, indirect) => {
      const bench = new Bench({}, indirect);
      const answers = [
        bench.offer(mapBytes(1, 0n, 0xfffn, 0n, 3), 4),
        bench.offer(attachBytes(1, 8), 4),
        bench.offer(mapBytes(1, 0n, 0xfffn, 0n, 3), 4),
        bench.offer(probe, 516),
        bench.offer(unmapBytes(1, 0n, 0xfffn), 4),
      ];
      expect(bench.queues.handleRequests()).toBe(5);
      expect(bench.used()).toEqual([4, 4, 4, 516, 4]);
      expect(answers.map((at) => bench.memory.readU32(at))).toEqual([
        Status.NOENT,
        Status.OK,
        Status.OK,
        0x0014_0001,
        Status.OK,
      ]);
      expect(bench.memory.readU32(answers[3]! + 512)).toBe(Status.OK);
      expect(bench.queues.handleRequests()).toBe(0);
    },
  );

  it.each([1, 3, 7])(
    "does not care in which pieces of %i bytes a request comes (V133)",
    (piece) => {
      const bench = new Bench();
      const answers = [
        bench.offer(attachBytes(1, 8), 4, piece),
        bench.offer(mapBytes(1, 0n, 0xfffn, 0x5000n, 3), 4, piece),
      ];
      expect(bench.queues.handleRequests()).toBe(2);
      expect(bench.used()).toEqual([4, 4]);
      for (const at of answers) expect([...bench.bytes(at, 4)]).toEqual([0, 0, 0, 0]);
      expect([...bench.device.mappingsOf(1)!.entries()]).toEqual([
        { start: 0n, last: 0xfffn, value: 0x5000n, flags: 3 },
      ]);
    },
  );

  it("takes a body that ends in the middle of a word as too short (V18)", () => {
    const bench = new Bench();
    const at = bench.offer(attachBytes(1, 8).slice(0, 19), 4);
    bench.queues.handleRequests();
    expect(bench.memory.readU32(at)).toBe(Status.INVAL);
  });

  it("is not misled by what the request before left in the copy (V18, V145)", () => {
    const bench = new Bench();
    bench.offer(attachBytes(1, 8), 4);
    bench.offer(mapBytes(1, 0n, 0xfffn, 0n, 3), 4);
    const at = bench.offer(mapBytes(1, 0x1000n, 0x1fffn, 0n, 3).slice(0, 32), 4);
    bench.queues.handleRequests();
    expect(bench.memory.readU32(at)).toBe(Status.INVAL);
    expect(bench.device.mappingCount).toBe(1);
  });

  it("gives unknown and broken requests back untouched, with length 0 (V16, V17)", () => {
    const bench = new Bench();
    const unknown = bench.offer(Uint8Array.of(6, 0, 0, 0, 0, 0, 0, 0), 16);
    const noTail = bench.offer(attachBytes(1, 8), 3);
    const noWritable = bench.offer(attachBytes(1, 8), 0);
    const noHead = bench.offer(Uint8Array.of(1, 2, 3), 4);
    expect(noWritable).toBeGreaterThan(0);
    expect(bench.queues.handleRequests()).toBe(4);
    expect(bench.used()).toEqual([0, 0, 0, 0]);
    for (const [at, bytes] of [
      [unknown, 16],
      [noTail, 3],
      [noHead, 4],
    ] as const)
      expect(bench.bytes(at, bytes).every((byte) => byte === 0xaa)).toBe(true);
    expect(bench.device.domainIds).toEqual([]);
  });

  it("writes nothing behind the used length (V20, V22)", () => {
    const bench = new Bench();
    const at = bench.offer(attachBytes(1, 8), 64);
    bench.queues.handleRequests();
    expect(bench.used()).toEqual([4]);
    expect(bench.bytes(at + 4, 60).every((byte) => byte === 0xaa)).toBe(true);
  });

  it("handles no more at a time than asked for", () => {
    const bench = new Bench();
    for (let index = 0; index < 10; index += 1) bench.offer(attachBytes(1, 8), 4);
    expect(bench.queues.handleRequests(3)).toBe(3);
    expect(bench.used().length).toBe(3);
    expect(bench.queues.handleRequests()).toBe(7);
  });

  it("tells the driver only after the listeners know (V28, V87)", () => {
    const bench = new Bench();
    bench.offer(attachBytes(1, 8), 4);
    bench.offer(mapBytes(1, 0n, 0xfffn, 0n, 3), 4);
    bench.queues.handleRequests();
    bench.used();
    const seen: boolean[] = [];
    bench.device.addListener({ unmapped: () => seen.push(bench.requests.hasUsed()) });
    bench.offer(unmapBytes(1, 0n, 0xfffn), 4);
    bench.queues.handleRequests();
    expect(seen).toEqual([false]);
    expect(bench.used()).toEqual([4]);
  });

  it("stops where a quirk stops the device: nothing comes back, no record tells of it (V124)", () => {
    const bench = new Bench({ quirks: ["qemu-short-request-breaks-device"] });
    bench.offer(attachBytes(1, 8), 4);
    bench.offer(Uint8Array.of(1), 4);
    bench.offer(attachBytes(1, 8), 4);
    expect(bench.queues.handleRequests()).toBe(1);
    expect(bench.device.isStopped).toBe(true);
    expect(bench.used()).toEqual([4]);
    expect(bench.queues.handleRequests()).toBe(0);
    expect(bench.device.faults.count).toBe(0);
  });
});

describe("the event queue", () => {
  const recordAt = (bench: Bench, at: number) => FaultRecord.decode(viewOf(bench.bytes(at, 24)));

  it("carries one record a buffer, of 24 bytes (V117, V122)", () => {
    const bench = new Bench({ bypass: false });
    const buffers = [bench.offerEvent(24), bench.offerEvent(64), bench.offerEvent(24)];
    bench.fault(5);
    bench.fault(2 ** 40);
    expect(bench.queues.deliverFaults()).toBe(2);
    expect(bench.used(bench.events)).toEqual([24, 24]);
    expect(recordAt(bench, buffers[0]!)).toMatchObject({
      reason: 1,
      flags: 0x101,
      endpoint: 8,
      address: 0x5000n,
    });
    expect(recordAt(bench, buffers[1]!).address).toBe(2n ** 52n);
    expect(bench.queues.deliverFaults()).toBe(0);
  });

  it("lets records wait for a buffer and drops the newest (V120)", () => {
    const bench = new Bench({ bypass: false, faultsMax: 3 });
    for (let page = 0; page < 5; page += 1) bench.fault(page);
    expect(bench.queues.deliverFaults()).toBe(0);
    const buffers = [0, 1, 2, 3].map(() => bench.offerEvent(24));
    expect(bench.queues.deliverFaults()).toBe(3);
    expect(buffers.slice(0, 3).map((at) => recordAt(bench, at).address)).toEqual([
      0n,
      0x1000n,
      0x2000n,
    ]);
    expect(bench.device.faults.dropped).toBe(2);
  });

  it("skips a record for which the buffer is too short, and keeps the buffer (V121)", () => {
    const bench = new Bench({ bypass: false });
    bench.offerEvent(23);
    bench.offerEvent(24);
    bench.fault(1);
    bench.fault(2);
    expect(bench.queues.deliverFaults()).toBe(0);
    expect(bench.queues.recordsSkipped).toBe(2);
    expect(bench.used(bench.events)).toEqual([]);
    expect(bench.queues.eventQueue.inFlight).toBe(0);
    expect(bench.device.faults.count).toBe(0);
  });

  it("never holds up the request queue (V120)", () => {
    const bench = new Bench({ bypass: false });
    for (let page = 0; page < 1000; page += 1) bench.fault(page);
    bench.offer(attachBytes(1, 8), 4);
    bench.queues.deliverFaults();
    expect(bench.queues.handleRequests()).toBe(1);
    expect(bench.used()).toEqual([4]);
  });
});
