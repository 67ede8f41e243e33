/** Admin commands: what Identify, features, logs, events and queues answer, right and wrong. */
import { describe, expect, it } from "vitest";
import type { Completion } from "./host.suite.ts";
import { NvmeRig } from "./rig.suite.ts";

/** Statuses as the specification prints them: type, code. */
const status = (type: number, code: number): number => (type << 8) | code;
const INVALID_FIELD = status(0, 0x02);
const INVALID_NAMESPACE = status(0, 0x0b);
const QUEUE_IDENTIFIER = status(1, 0x01);
const QUEUE_SIZE = status(1, 0x02);

function started(queues = 1) {
  const rig = new NvmeRig();
  rig.host.start(queues);
  const page = rig.dma.allocate(2);
  const admin = (opcode: number, words: number[], namespace = 0, prp1 = page.address): Completion =>
    rig.host.execute(rig.host.admin, { opcode, words, namespace, prp1 });
  return { rig, page, admin };
}

describe("1.4, 5.15 Identify", () => {
  const { page, admin } = started();
  const view = (): DataView => new DataView(page.read(0, 4096).buffer);

  it("controller: serial number, transfer size, entry sizes, one namespace", () => {
    expect(admin(6, [1]).status).toBe(0);
    expect(String.fromCharCode(...page.read(4, 20))).toBe("SERIAL-0001         ");
    expect(view().getUint8(77)).toBe(8);
    expect(view().getUint16(512, true)).toBe(0x4466);
    expect(view().getUint32(516, true)).toBe(1);
    expect(String.fromCharCode(...page.read(768, 32))).toBe("nqn.2014-08.org.nvmexpress:uuid:");
  });

  it("namespace: size, and a format of 512 bytes", () => {
    expect(admin(6, [0], 1).status).toBe(0);
    expect(view().getBigUint64(0, true)).toBe(2048n);
    expect(view().getUint8(130)).toBe(9);
    expect(view().getUint8(99)).toBe(0);
  });

  it("a namespace that is not there is refused, for all of them too", () => {
    for (const namespace of [0, 2, 0xffff_fffe, 0xffff_ffff])
      expect(admin(6, [0], namespace).status).toBe(INVALID_NAMESPACE);
    expect(admin(6, [3], 2).status).toBe(INVALID_NAMESPACE);
  });

  it("active namespaces: those above the given one", () => {
    admin(6, [2], 0);
    expect(view().getUint32(0, true)).toBe(1);
    admin(6, [2], 1);
    expect(view().getUint32(0, true)).toBe(0);
    expect(admin(6, [2], 0xffff_fffe).status).toBe(INVALID_NAMESPACE);
  });

  it("descriptors: a UUID, the one in the subsystem's name", () => {
    admin(6, [1]);
    const name = String.fromCharCode(...page.read(800, 36)).replaceAll("-", "");
    admin(6, [3], 1);
    expect([...page.read(0, 4)]).toEqual([3, 16, 0, 0]);
    expect(Buffer.from(page.read(4, 16)).toString("hex")).toBe(name);
    expect([...page.read(20, 4)]).toEqual([0, 0, 0, 0]);
  });

  it("an unknown structure, and a command set that is not there, are refused", () => {
    for (const cns of [4, 7, 0x10, 0xff]) expect(admin(6, [cns]).status).toBe(INVALID_FIELD);
    expect(admin(6, [6]).status).toBe(0);
    expect(admin(6, [6, 2 << 24]).status).toBe(INVALID_FIELD);
  });

  it("data that crosses a page goes to PRP 2; SGLs are refused in admin commands", () => {
    const { rig, page: pages } = started();
    const prp = { prp1: pages.address + 0xe00, prp2: pages.address + 0x1000 };
    expect(rig.host.execute(rig.host.admin, { opcode: 6, words: [1], ...prp }).status).toBe(0);
    expect(String.fromCharCode(...pages.read(0xe04, 11))).toBe("SERIAL-0001");
    const sgl = new Uint8Array(16);
    const refused = rig.host.execute(rig.host.admin, { opcode: 6, words: [1], sgl });
    expect(refused.status).toBe(INVALID_FIELD);
  });
});

describe("1.4, 5.3 and 5.4: creation of queues", () => {
  const size = (id: number, entries: number): number => ((entries - 1) << 16) | id;

  it("a completion queue is refused for its identifier, size, place, vector, in that order", () => {
    const { admin, page } = started();
    expect(admin(5, [size(0, 64), 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(5, [size(3, 64), 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(5, [size(1, 64), 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(5, [size(2, 1), 1]).status).toBe(QUEUE_SIZE);
    expect(admin(5, [size(2, 1025), 1]).status).toBe(QUEUE_SIZE);
    expect(admin(5, [size(2, 64), 0]).status).toBe(INVALID_FIELD);
    expect(admin(5, [size(2, 64), 1], 0, page.address + 8).status).toBe(status(0, 0x13));
    expect(admin(5, [size(2, 64), (3 << 16) | 3]).status).toBe(status(1, 0x08));
    expect(admin(5, [size(2, 64), (3 << 16) | 1]).status).toBe(0);
  });

  it("a submission queue is refused for its own and for its completion queue's identifier", () => {
    const { admin } = started();
    expect(admin(1, [size(0, 64), (1 << 16) | 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(1, [size(1, 64), (1 << 16) | 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(1, [size(2, 64), 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(1, [size(2, 64), (9 << 16) | 1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(1, [size(2, 64), (2 << 16) | 1]).status).toBe(status(1, 0x00));
    expect(admin(1, [size(2, 64), (1 << 16) | 1]).status).toBe(0);
  });

  it("entry sizes other than 64 and 16 in CC refuse queues", () => {
    const { rig, admin } = started();
    const configuration = rig.host.readRegister(0x14);
    rig.host.writeRegister(0x14, (configuration & ~0xf0_0000) | (5 << 20));
    expect(admin(5, [size(2, 64), 1]).status).toBe(INVALID_FIELD);
    rig.host.writeRegister(0x14, configuration);
    expect(admin(5, [size(2, 64), 1]).status).toBe(0);
    rig.host.writeRegister(0x14, configuration & ~0xf_0000);
    expect(admin(1, [size(2, 64), (2 << 16) | 1]).status).toBe(INVALID_FIELD);
  });
});

describe("1.4, 5.5 and 5.6: deletion of queues", () => {
  it("a completion queue with a submission queue stays; unknown ones are refused", () => {
    const { admin } = started();
    expect(admin(4, [1]).status).toBe(status(1, 0x0c));
    expect(admin(4, [0]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(0, [0]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(0, [2]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(0, [1]).status).toBe(0);
    expect(admin(0, [1]).status).toBe(QUEUE_IDENTIFIER);
    expect(admin(4, [1]).status).toBe(0);
    expect(admin(4, [1]).status).toBe(QUEUE_IDENTIFIER);
  });

  it("a submission queue goes only after what the store does for it has ended", () => {
    const { rig } = started();
    const { host, store, queue } = rig;
    store.isSlow = true;
    const flush = host.submit(queue, { opcode: 0, namespace: 1 });
    host.run();
    const deletion = host.submit(host.admin, { opcode: 0, words: [1] });
    host.run();
    host.poll(host.admin);
    expect(host.take(host.admin, deletion)).toBe(null);
    store.finish();
    expect(host.await(host.admin, deletion).status).toBe(0);
    host.poll(queue);
    expect(host.take(queue, flush)?.status).toBe(0);
  });

  it("commands behind a deletion are not executed any more", () => {
    const { rig } = started();
    const { host, queue, store } = rig;
    const deletion = host.submit(host.admin, { opcode: 0, words: [1] });
    host.put(queue, { opcode: 0, namespace: 1 });
    expect(host.await(host.admin, deletion).status).toBe(0);
    host.ring(queue);
    host.run();
    expect(store.calls).toEqual([]);
  });
});

describe("1.4, 5.14 and 5.21: features", () => {
  it("each feature is read back as it was set; default and capabilities are told", () => {
    const { admin } = started(0);
    for (const [feature, value, initial] of [
      [0x01, 0x0102_0303, 4],
      [0x05, 0x1234, 0],
      [0x06, 0, 1],
      [0x08, 0x0305, 0],
      [0x0a, 1, 0],
      [0x0b, 2, 0],
    ] as const) {
      expect(admin(9, [feature, value]).status, `feature ${feature}`).toBe(0);
      expect(admin(10, [feature]).result).toBe(value);
      expect(admin(10, [feature | 0x100]).result).toBe(initial);
      expect(admin(10, [feature | 0x300]).result & 4).toBe(4);
    }
  });

  it("number of queues: so many as there are; refused as 65 536, or once there are queues", () => {
    const { admin } = started();
    expect(admin(10, [7]).result).toBe(0x0001_0001);
    expect(admin(9, [7, 0x0005_0005]).status).toBe(status(0, 0x0c));
    const fresh = new NvmeRig();
    fresh.host.enable();
    const set = (value: number) =>
      fresh.host.execute(fresh.host.admin, { opcode: 9, words: [7, value] });
    expect(set(0x003f_003f).result).toBe(0x0001_0001);
    expect(set(0xffff_0000).status).toBe(INVALID_FIELD);
    expect(set(0x0000_ffff).status).toBe(INVALID_FIELD);
  });

  it("interrupt vectors: coalescing per vector, a vector too many refused", () => {
    const { admin } = started();
    expect(admin(9, [0x09, 0x1_0002]).status).toBe(0);
    expect(admin(10, [0x09, 2]).result).toBe(0x1_0002);
    expect(admin(10, [0x09, 1]).result).toBe(1);
    expect(admin(9, [0x09, 3]).status).toBe(INVALID_FIELD);
  });

  it("saving, unknown features, power states and foreign namespaces are refused", () => {
    const { admin } = started();
    expect(admin(9, [0x8000_0006, 1]).status).toBe(status(1, 0x0d));
    expect(admin(9, [0x7f, 1]).status).toBe(INVALID_FIELD);
    expect(admin(10, [0x0c]).status).toBe(INVALID_FIELD);
    expect(admin(9, [0x02, 1]).status).toBe(INVALID_FIELD);
    expect(admin(9, [0x06, 1], 1).status).toBe(status(1, 0x0f));
    expect(admin(9, [0x05, 1], 1).status).toBe(0);
    expect(admin(9, [0x05, 1], 2).status).toBe(INVALID_NAMESPACE);
  });
});

describe("1.4, 5.2: asynchronous events", () => {
  it("a doorbell that does not exist completes a request; the type is silent until read", () => {
    const { rig, admin } = started();
    const { host } = rig;
    const first = [...host.outstanding].at(-1)! & 0xffff;
    host.writeRegister(0x1000 + 8 * 2, 1);
    host.run();
    host.poll(host.admin);
    expect(host.take(host.admin, first)?.result).toBe(0x0001_0000);
    const second = host.submit(host.admin, { opcode: 12 });
    host.writeRegister(0x1000, 77);
    host.run();
    host.poll(host.admin);
    expect(host.take(host.admin, second)).toBe(null);
    expect(admin(2, [(15 << 16) | 0x8001]).status).toBe(0);
    expect(host.take(host.admin, second)).toBe(null);
    expect(admin(2, [(15 << 16) | 1]).status).toBe(0);
    expect(host.await(host.admin, second).result).toBe(0x0001_0100);
  });

  it("four requests wait, a fifth is refused; Abort ends one", () => {
    const { rig, admin } = started();
    const { host } = rig;
    const waiting = [0, 1, 2].map(() => host.submit(host.admin, { opcode: 12 }));
    expect(admin(12, []).status).toBe(status(1, 0x05));
    expect(admin(8, [(waiting[1]! << 16) | 0]).result).toBe(0);
    expect(host.await(host.admin, waiting[1]!).status).toBe(status(0, 0x07));
    expect(admin(8, [(waiting[1]! << 16) | 0]).result).toBe(1);
    expect(admin(8, [(waiting[0]! << 16) | 1]).result).toBe(1);
  });

  it("a threshold below the temperature gives a health event to who asked for it", () => {
    const { rig, admin } = started();
    const { host } = rig;
    const request = [...host.outstanding].at(-1)! & 0xffff;
    expect(admin(9, [0x04, 300]).status).toBe(0);
    host.run();
    host.poll(host.admin);
    expect(host.take(host.admin, request)).toBe(null);
    expect(admin(9, [0x0b, 2]).status).toBe(0);
    expect(host.await(host.admin, request).result).toBe(0x0002_0101);
  });
});

describe("1.4, 5.14.1: log pages", () => {
  it("errors: the newest first, with queue, command and status", () => {
    const { rig, page, admin } = started();
    const failed = rig.host.submit(rig.queue, { opcode: 0x7e, namespace: 1 });
    expect(rig.host.await(rig.queue, failed).doNotRetry).toBe(true);
    expect(admin(2, [(15 << 16) | 1]).status).toBe(0);
    const view = new DataView(page.read(0, 64).buffer);
    expect(view.getBigUint64(0, true)).toBe(1n);
    expect(view.getUint16(8, true)).toBe(1);
    expect(view.getUint16(10, true)).toBe(failed);
    expect((view.getUint16(12, true) >>> 1) & 0x7ff).toBe(1);
  });

  it("health: counts what was read and written, in units of a thousand sectors", () => {
    const { rig, page, admin } = started();
    const data = rig.dma.allocate(1);
    const words = [0, 0, 7];
    for (const opcode of [2, 2, 1])
      rig.host.execute(rig.queue, { opcode, namespace: 1, prp1: data.address, words });
    expect(admin(2, [(127 << 16) | 2], 0xffff_ffff).status).toBe(0);
    const view = new DataView(page.read(0, 512).buffer);
    expect(view.getUint16(1, true)).toBe(310);
    expect(view.getBigUint64(32, true)).toBe(1n);
    expect(view.getBigUint64(64, true)).toBe(2n);
    expect(view.getBigUint64(80, true)).toBe(1n);
    expect(admin(2, [(127 << 16) | 2], 1).status).toBe(INVALID_FIELD);
  });

  it("effects: the commands that there are; firmware: its revision", () => {
    const { page, admin } = started();
    expect(admin(2, [(0x3ff << 16) | 5]).status).toBe(0);
    const effects = new DataView(page.read(0, 4096).buffer);
    expect(effects.getUint32(4 * 6, true)).toBe(1);
    expect(effects.getUint32(4 * 0x80, true)).toBe(0);
    expect(effects.getUint32(1024 + 4 * 1, true)).toBe(3);
    expect(admin(2, [(127 << 16) | 3]).status).toBe(0);
    expect(String.fromCharCode(...page.read(8, 3))).toBe("1.0");
  });

  it("unknown pages and offsets are refused; a length beyond the page moves the page only", () => {
    const { page, admin } = started();
    expect(admin(2, [(127 << 16) | 0x70]).status).toBe(status(1, 0x09));
    expect(admin(2, [(127 << 16) | 2, 0, 2]).status).toBe(INVALID_FIELD);
    expect(admin(2, [(127 << 16) | 2, 0, 512]).status).toBe(INVALID_FIELD);
    expect(admin(2, [(127 << 16) | 2, 0, 0, 1]).status).toBe(INVALID_FIELD);
    page.write(0, new Uint8Array(4096).fill(0xaa));
    expect(admin(2, [(0xffff << 16) | 2, 0xffff]).status).toBe(0);
    expect(page.read(511, 2)).toEqual(Uint8Array.of(0, 0xaa));
  });
});

describe("commands that there are not", () => {
  it("firmware, format, security, namespaces, sanitize and keep alive: invalid opcode", () => {
    const { admin } = started();
    for (const opcode of [0x0d, 0x10, 0x11, 0x14, 0x15, 0x18, 0x7c, 0x80, 0x81, 0x84, 0xff]) {
      const done = admin(opcode, []);
      expect(done.status).toBe(1);
      expect(done.doNotRetry).toBe(true);
    }
  });

  it("1.4, 6.2: a fused command is refused", () => {
    const { rig } = started();
    const fused = rig.host.execute(rig.queue, { opcode: 5, flags: 1, namespace: 1 });
    expect(fused.status).toBe(INVALID_FIELD);
    expect(rig.host.execute(rig.host.admin, { opcode: 6, flags: 2 }).status).toBe(INVALID_FIELD);
  });
});
