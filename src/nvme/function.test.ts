/** The controller as a host's driver meets it: a life from reset to shutdown, and its registers. */
import { expect, it } from "vitest";
import { newView } from "../memory/memory-view.ts";
import { NvmeFunction } from "./function.ts";
import { NvmeHost, PlainDma, plainMemory, TestStore, transfer } from "./host.suite.ts";

function rig(queues = 4) {
  const memory = plainMemory();
  const store = new TestStore();
  const raised: number[] = [];
  const device = new NvmeFunction({
    memory,
    store,
    queues,
    interrupts: { raise: (vector) => raised.push(vector) },
  });
  const host = new NvmeHost(device, new PlainDma(memory));
  return { memory, store, device, host, raised };
}

it("a host starts the controller, reads, writes, flushes and shuts it down", () => {
  const { host, store, raised } = rig();
  expect(host.start(2)).toBe(2048);
  const [queue] = host.queues;
  const buffer = host.dma.allocate(32);
  const list = host.dma.allocate(1);
  expect(host.execute(queue!, transfer(2, 8, 8, buffer, list)).status).toBe(0);
  expect(buffer.read(0, 4096)).toEqual(store.data.slice(4096, 8192));
  const pattern = Uint8Array.from({ length: 65_536 }, (_, at) => (at * 7) >>> 3);
  buffer.write(0, pattern);
  expect(host.execute(queue!, transfer(1, 100, 128, buffer, list)).status).toBe(0);
  expect(store.data.slice(51_200, 51_200 + 65_536)).toEqual(pattern);
  expect(host.execute(queue!, { opcode: 0, namespace: 1 }).status).toBe(0);
  expect(store.calls.at(-1)).toBe("flush");
  expect(raised).toContain(1);
  host.shutDown();
  expect(host.strays).toEqual([]);
});

it("1.4, 3.1: registers have the values of the specification, in any width", () => {
  const { host, device } = rig();
  expect(host.readRegister(0, 8)).toBe(0x20_1401_03ff);
  expect(host.readRegister(0, 2)).toBe(0x03ff);
  expect(host.readRegister(4, 1)).toBe(0x20);
  expect(host.readRegister(8)).toBe(0x0001_0400);
  host.writeRegister(0x28, 0x1_2345_6fff, 8);
  expect(host.readRegister(0x28, 8)).toBe(0x1_2345_6000);
  host.writeRegister(0x2a, 0xabcd, 2);
  expect(host.readRegister(0x28, 8)).toBe(0x1_abcd_6000);
  expect(device.read(0, 0x1fff, newView(8), 0, 2)).toBe(false);
  expect(device.write(1, 0, newView(8), 0, 1)).toBe(false);
  expect(device.read(0, -1, newView(8), 0, 2)).toBe(false);
});
