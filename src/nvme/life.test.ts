/** The life of a controller: enable, reset and shutdown, at every step of what it does. */
import { describe, expect, it } from "vitest";
import { transfer } from "./host.suite.ts";
import { NvmeRig } from "./rig.suite.ts";

const CC = 0x14;
const CSTS = 0x1c;

describe("1.4, 3.1.5: enable", () => {
  it("queues of one entry, another page size or command set: fatal status, cured by a reset", () => {
    const { host } = new NvmeRig();
    host.enable();
    host.disable();
    for (const [aqa, cc] of [
      [0x1f, 1],
      [0x1f_0000, 1],
      [0x1f_001f, 0x81],
      [0x1f_001f, 0x11],
      [0x1f_001f, 0x801],
    ] as const) {
      host.writeRegister(0x24, aqa);
      host.writeRegister(CC, cc);
      expect(host.readRegister(CSTS)).toBe(2);
      host.writeRegister(CC, 0);
      expect(host.readRegister(CSTS)).toBe(0);
    }
    expect(host.start()).toBe(2048);
  });

  it("doorbells and work before the controller is ready, or without bus master, do nothing", () => {
    const { host, device, store } = new NvmeRig();
    host.writeRegister(0x1000, 5);
    expect(device.work()).toBe(false);
    expect(store.calls).toEqual([]);
    expect(host.readRegister(CSTS)).toBe(0);
  });

  it("1.4, 7.3.2: a reset forgets queues and features, and keeps AQA, ASQ and ACQ", () => {
    const { host } = new NvmeRig();
    host.start();
    host.execute(host.admin, { opcode: 9, words: [6, 0] });
    const base = host.readRegister(0x28, 8);
    host.disable();
    expect(host.readRegister(0x28, 8)).toBe(base);
    host.enable();
    expect(host.execute(host.admin, { opcode: 10, words: [6] }).result).toBe(1);
    expect(host.execute(host.admin, { opcode: 4, words: [1] }).status).toBe(0x101);
  });
});

describe("operations of the store that outlive a reset", () => {
  it("hold the next life back until they have ended, and complete nothing in it", () => {
    const { host, store, queue } = startedSlow();
    host.submit(queue, { opcode: 8, namespace: 1, words: [0, 0, 7] });
    host.run();
    host.writeRegister(CC, 0);
    expect(host.readRegister(CSTS)).toBe(0);
    host.writeRegister(CC, 0x0046_0001);
    host.run();
    expect(host.readRegister(CSTS)).toBe(0);
    store.isSlow = false;
    store.finish();
    host.run();
    expect(host.readRegister(CSTS)).toBe(1);
    expect(host.start()).toBe(2048);
    expect(host.strays).toEqual([]);
  });

  function startedSlow() {
    const rig = new NvmeRig();
    rig.host.start();
    rig.store.isSlow = true;
    return { host: rig.host, store: rig.store, queue: rig.queue };
  }
});

describe("1.4, 7.6.2: shutdown", () => {
  it("is complete once what was written is durable; nothing is executed after it", () => {
    const { host, store, queue, dma } = rigOf();
    const read = transfer(2, 0, 8, dma.allocate(1), dma.allocate(1));
    store.isSlow = true;
    host.writeRegister(CC, host.readRegister(CC) | 0x4000);
    expect(host.readRegister(CSTS)).toBe(5);
    store.finish();
    host.run();
    expect(host.readRegister(CSTS)).toBe(9);
    host.submit(queue, read);
    host.run();
    expect(store.calls).toEqual(["flush"]);
    store.isSlow = false;
    expect(host.start()).toBe(2048);
  });

  it("abrupt: at once", () => {
    const { host, store } = rigOf();
    host.writeRegister(CC, host.readRegister(CC) | 0x8000);
    expect(host.readRegister(CSTS)).toBe(9);
    expect(store.calls).toEqual([]);
  });

  function rigOf() {
    const rig = new NvmeRig();
    rig.host.start();
    return { host: rig.host, store: rig.store, queue: rig.queue, dma: rig.dma };
  }
});

describe("at every step of a life", () => {
  /** A life as a list of steps, so that something can come between any two. */
  function stepsOf(rig: NvmeRig): (() => void)[] {
    const { host, dma, store } = rig;
    const buffer = dma.allocate(4);
    const list = dma.allocate(1);
    const submit = (command: Parameters<typeof host.submit>[1]) => () => {
      if (host.queues.length > 0) host.submit(rig.queue, command);
    };
    return [
      () => host.enable(),
      () => void host.start(2, 8),
      submit(transfer(2, 0, 32, buffer, list)),
      () => void host.device.work(),
      () => {
        store.isSlow = true;
      },
      submit({ opcode: 0, namespace: 1 }),
      submit({ opcode: 8, namespace: 1, words: [64, 0, 7] }),
      () => void host.device.work(),
      () => void host.submit(host.admin, { opcode: 0, words: [1] }),
      () => void host.device.work(),
      () => store.finish(),
      () => {
        store.isSlow = false;
      },
      () => void host.device.work(),
    ];
  }

  const count = stepsOf(new NvmeRig()).length;

  it.each([
    ["a reset of the machine", (rig: NvmeRig) => rig.device.reset()],
    ["a controller reset", (rig: NvmeRig) => rig.host.writeRegister(CC, 0)],
  ])("%s leaves a controller that starts again", (_, interrupt) => {
    for (let at = 0; at <= count; at += 1) {
      const rig = new NvmeRig();
      const steps = stepsOf(rig);
      for (const step of steps.slice(0, at)) step();
      interrupt(rig);
      rig.device.work();
      rig.store.isSlow = false;
      rig.store.finish();
      expect(rig.host.start(2, 8), `step ${at}`).toBe(2048);
      const read = transfer(2, 0, 8, rig.dma.allocate(1), rig.dma.allocate(1));
      expect(rig.host.execute(rig.queue, read).status).toBe(0);
      expect(rig.host.strays).toEqual([]);
    }
  });

  it("a hand-over is not noticed", () => {
    for (let at = 0; at <= count; at += 1) {
      const rig = new NvmeRig();
      for (const [index, step] of stepsOf(rig).entries()) {
        if (index === at) rig.handOver();
        step();
      }
      rig.store.isSlow = false;
      rig.store.finish();
      rig.host.run();
      for (const queue of [rig.queue, rig.host.admin]) rig.host.poll(queue);
      // The event request still waits, all else is completed, and nothing twice.
      expect(rig.host.outstanding.size, `step ${at}`).toBe(1);
      expect(rig.host.strays).toEqual([]);
    }
  });
});

describe("a state that does not fit", () => {
  it("is refused, whatever part of it is not as it should be", () => {
    const rig = new NvmeRig();
    rig.host.start();
    const saved = JSON.stringify(rig.device.save());
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]): void => {
      if (path.length > 0) paths.push(path);
      if (typeof value !== "object" || value === null) return;
      for (const [key, inner] of Object.entries(value).slice(0, 12)) walk(inner, [...path, key]);
    };
    walk((JSON.parse(saved) as { controller: unknown }).controller, ["controller"]);
    expect(paths.length).toBeGreaterThan(60);
    for (const path of paths) {
      for (const wrong of ["x", -7, 1.5, null, 2 ** 40, [], {}]) {
        const state = JSON.parse(saved) as Record<string, unknown>;
        let at = state;
        for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
        at[path.at(-1)!] = wrong;
        try {
          rig.build().restore(state);
        } catch (error) {
          expect((error as { code?: string }).code, `${path.join(".")} ${wrong}`).toBe("pci/state");
        }
      }
    }
    for (const state of [null, 7, {}, { controller: { version: 2 } }])
      expect(() => rig.build().restore(state)).toThrow();
  });
});
