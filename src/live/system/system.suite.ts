/** What every implementation of {@link System} does; run by `system.test.ts`. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { newView } from "../../memory/memory-view.ts";
import { MAP_BYTES_MAX, type Mapping } from "./mapping.ts";
import { MessageSlot, SLOT_BYTES } from "./message-slot.ts";
import { PieceList } from "./piece-list.ts";
import { Poll, PollSet } from "./poll-set.ts";
import type { SyncDone, SyncQueue } from "./sync-queue.ts";
import { Seal, type System } from "./system.ts";

/** An implementation under test. */
export interface SystemUnderTest {
  readonly system: System;
  /** A path at which nothing is. */
  path(name: string): string;
  makeFile(name: string, bytes: number): string;
  dispose(): void;
}

const DATA_AT = 2 * SLOT_BYTES;

/** Two slots and some room for data. */
class Desk {
  readonly memory: Mapping;
  readonly out: MessageSlot;
  readonly in: MessageSlot;
  readonly #system: System;

  constructor(system: System) {
    this.#system = system;
    this.memory = system.allocate(DATA_AT + 300_000, "desk");
    this.out = new MessageSlot(this.memory, 0);
    this.in = new MessageSlot(this.memory, SLOT_BYTES);
  }

  send(fd: number, text: string, fds: readonly number[] = []): number {
    const bytes = new TextEncoder().encode(text);
    this.memory.view.u8.set(bytes, DATA_AT);
    this.out.aim(this.memory.address + DATA_AT, bytes.length);
    this.out.attach(fds);
    return this.#system.send(fd, this.out);
  }

  receive(fd: number, how: "take" | "peek" = "take", most = 1000, withDescriptors = true): string {
    this.memory.view.u8.fill(0, DATA_AT, DATA_AT + most);
    this.in.aim(this.memory.address + DATA_AT, most);
    if (withDescriptors) this.in.acceptDescriptors();
    const count = this.#system.receive(fd, this.in, how, "desk");
    if (count < 0) return `errno ${-count}`;
    expect(this.in.count).toBe(count);
    return new TextDecoder().decode(this.memory.view.u8.slice(DATA_AT, DATA_AT + count));
  }
}

/** Runs the suite. */
export function describeSystem(name: string, make: () => Promise<SystemUnderTest>): void {
  describe(`${name} system`, () => {
    let world: SystemUnderTest;
    let system: System;
    let desk: Desk;
    const pair = () => system.socketPair("test") as readonly [number, number];
    const event = () => system.createEvent("test");
    const closeAll = (fds: readonly number[]) => {
      for (const fd of fds) system.close(fd);
    };

    beforeEach(async () => {
      world = await make();
      system = world.system;
      desk = new Desk(system);
    });
    afterEach(() => {
      system.unmap(desk.memory);
      expect(system.ledger.open, "nothing stays open").toEqual([]);
      world.dispose();
    });

    describe("sockets", () => {
      it("carry bytes in order, several sends in one receive", () => {
        const [a, b] = pair();
        expect(desk.send(a, "one ")).toBe(4);
        expect(desk.send(a, "two")).toBe(3);
        expect(desk.receive(b)).toBe("one two");
        expect(desk.receive(b)).toBe(`errno ${Errno.EAGAIN}`);
        closeAll([a, b]);
      });

      it("carry descriptors with the first byte, and end a receive behind them (U2)", () => {
        const [a, b] = pair();
        const e = event();
        desk.send(a, "posted ");
        desk.send(a, "with", [e, e]);
        desk.send(a, "behind");
        expect(desk.receive(b)).toBe("posted with");
        const got = desk.in.descriptors();
        expect(got).toHaveLength(2);
        system.signal(got[0]!);
        expect(system.drain(e)).toBe(true);
        expect(desk.receive(b)).toBe("behind");
        expect(desk.in.descriptors()).toEqual([]);
        closeAll([a, b, e, ...got]);
      });

      it("peek without taking: bytes and descriptors come again", () => {
        const [a, b] = pair();
        const e = event();
        desk.send(a, "x");
        desk.send(a, "yz", [e]);
        desk.send(a, "w");
        expect(desk.receive(b, "peek")).toBe("xyz");
        const peeked = desk.in.descriptors();
        expect(desk.receive(b)).toBe("xyz");
        const taken = desk.in.descriptors();
        expect([peeked.length, taken.length]).toEqual([1, 1]);
        expect(desk.receive(b)).toBe("w");
        closeAll([a, b, e, ...peeked, ...taken]);
      });

      it("hand descriptors over once when a segment is taken in parts", () => {
        const [a, b] = pair();
        const e = event();
        desk.send(a, "abcd", [e]);
        expect(desk.receive(b, "take", 1)).toBe("a");
        const got = desk.in.descriptors();
        expect(desk.receive(b, "take", 2)).toBe("bc");
        expect(desk.in.descriptors()).toEqual([]);
        expect(desk.receive(b, "take", 2)).toBe("d");
        closeAll([a, b, e, ...got]);
      });

      it("drop descriptors that there is no room for, and say so", () => {
        const [a, b] = pair();
        const e = event();
        desk.send(a, "x", [e]);
        expect(desk.receive(b, "take", 10, false)).toBe("x");
        expect(desk.in.isTruncated).toBe(true);
        expect(desk.in.descriptors()).toEqual([]);
        closeAll([a, b, e]);
      });

      it("carry 253 descriptors with one message (U143)", () => {
        const [a, b] = pair();
        const e = event();
        expect(desk.send(a, "x", new Array(253).fill(e))).toBe(1);
        desk.receive(b);
        expect(desk.in.isTruncated).toBe(false);
        const got = desk.in.descriptors();
        expect(new Set(got).size).toBe(253);
        closeAll([a, b, e, ...got]);
      });

      it("refuse to send a descriptor that is not open", () => {
        const [a, b] = pair();
        expect(desk.send(a, "x", [999])).toBe(-Errno.EBADF);
        closeAll([a, b]);
      });

      it("take what fits, then nothing until the reader has read", () => {
        const [a, b] = pair();
        let sent = 0;
        for (let last = 1; last > 0 && sent < 2 ** 24; sent += Math.max(0, last)) {
          desk.out.aim(desk.memory.address + DATA_AT, 65_536);
          last = system.send(a, desk.out);
          if (last < 0) expect(last).toBe(-Errno.EAGAIN);
        }
        expect(sent).toBeGreaterThan(65_536);
        let received = 0;
        while (received < sent) {
          desk.in.aim(desk.memory.address + DATA_AT, 300_000);
          const count = system.receive(b, desk.in, "take", "test");
          expect(count).toBeGreaterThan(0);
          received += count;
        }
        expect(desk.send(a, "again")).toBe(5);
        closeAll([a, b]);
      });

      it("say the end of the stream after the last byte, and EPIPE to who still sends (U164)", () => {
        const [a, b] = pair();
        desk.send(a, "last");
        system.close(a);
        expect(desk.receive(b)).toBe("last");
        expect(desk.receive(b)).toBe("");
        expect(desk.receive(b)).toBe("");
        expect(desk.send(b, "x")).toBe(-Errno.EPIPE);
        closeAll([b]);
      });

      it("are reset when a peer leaves with mail unread", () => {
        const [a, b] = pair();
        desk.send(a, "unread");
        system.close(b);
        expect(desk.receive(a)).toBe(`errno ${Errno.ECONNRESET}`);
        expect(desk.receive(a)).toBe("");
        closeAll([a]);
      });

      it("stay connected while another holder is left", () => {
        const [a, b] = pair();
        const again = system.duplicate(a, "custody");
        system.close(a);
        expect(desk.receive(b)).toBe(`errno ${Errno.EAGAIN}`);
        expect(desk.send(again, "still here")).toBe(10);
        expect(desk.receive(b)).toBe("still here");
        closeAll([again, b]);
      });

      it("end for every holder by shutdown", () => {
        const [a, b] = pair();
        const again = system.duplicate(a, "custody");
        expect(system.shutdown(a)).toBe(0);
        expect(desk.receive(b)).toBe("");
        expect(desk.send(again, "x")).toBe(-Errno.EPIPE);
        closeAll([a, again, b]);
      });

      it("close descriptors in flight with the socket", () => {
        const [a, b] = pair();
        const [c, d] = pair();
        desk.send(a, "x", [c]);
        closeAll([a, b, c]);
        expect(desk.receive(d)).toBe("");
        closeAll([d]);
      });
    });

    describe("paths", () => {
      it("are listened on and connected to; the queue of connections is bounded", () => {
        const path = world.path("a.sock");
        const listener = system.listen(path, 1, "test");
        expect(system.accept(listener, "test")).toBe(-Errno.EAGAIN);
        const clients = [system.connect(path, "test"), system.connect(path, "test")];
        expect(system.connect(path, "test")).toBe(-Errno.EAGAIN);
        const server = system.accept(listener, "test");
        expect(desk.send(clients[0]!, "hello")).toBe(5);
        expect(desk.receive(server)).toBe("hello");
        expect(system.peer(server)).toHaveProperty("processId");
        closeAll([listener, server, ...clients]);
      });

      it("that are taken, too long, empty or nowhere are errors", () => {
        const path = world.path("b.sock");
        expect(system.connect(path, "test")).toBe(-Errno.ENOENT);
        const listener = system.listen(path, 1, "test");
        expect(system.listen(path, 1, "test")).toBe(-Errno.EADDRINUSE);
        system.close(listener);
        expect(system.connect(path, "test")).toBe(-Errno.ECONNREFUSED);
        expect(system.listen(path, 1, "test")).toBe(-Errno.EADDRINUSE);
        expect(system.listen(`/${"x".repeat(107)}`, 1, "test")).toBe(-Errno.ENAMETOOLONG);
        expect(system.connect(`/${"é".repeat(60)}`, "test")).toBe(-Errno.ENAMETOOLONG);
        expect(system.listen("", 1, "test")).toBe(-Errno.EINVAL);
        expect(system.listen("a\0b", 1, "test")).toBe(-Errno.EINVAL);
      });
    });

    describe("memory files", () => {
      it("are seen through every mapping, and by read and write", () => {
        const fd = system.createMemoryFile("ram", 65_536, "test");
        const request = { fd, offset: 0, bytes: 65_536, access: "shared" } as const;
        const one = system.map(request, "test") as Mapping;
        const high = system.map({ ...request, offset: 4096, bytes: 4096 }, "test") as Mapping;
        one.view.u32[1024] = 0x1234_5678;
        expect(high.view.u32[0]).toBe(0x1234_5678);
        const pieces = new PieceList(system, "test");
        const heap = newView(16);
        pieces.add(heap, 4, 4);
        pieces.addAddress(one.address, 2);
        expect(system.read(fd, pieces, 4096)).toBe(6);
        expect(heap.u32[1]).toBe(0x1234_5678);
        expect(one.view.u16[0]).toBe(0);
        pieces.clear();
        heap.u32[0] = 7;
        pieces.add(heap, 0, 4);
        expect(system.write(fd, pieces, 4096)).toBe(4);
        expect(high.view.u32[0]).toBe(7);
        pieces.dispose();
        system.unmap(one);
        system.unmap(high);
        system.close(fd);
      });

      it("keep a private mapping's stores to themselves", () => {
        const fd = system.createMemoryFile("rom", 4096, "test");
        const request = { fd, offset: 0, bytes: 4096 };
        const shared = system.map({ ...request, access: "shared" }, "test") as Mapping;
        const own = system.map({ ...request, access: "private" }, "test") as Mapping;
        own.view.u8[0] = 9;
        expect(shared.view.u8[0]).toBe(0);
        for (const mapping of [shared, own]) system.unmap(mapping);
        system.close(fd);
      });

      it("cannot shrink once sealed (U145)", () => {
        const fd = system.createMemoryFile("ram", 8192, "test");
        expect(system.seals(fd)).toBe(0);
        expect(system.addSeals(fd, Seal.SHRINK)).toBe(0);
        expect(system.seals(fd)).toBe(Seal.SHRINK);
        expect(system.resize(fd, 4096)).toBe(-Errno.EPERM);
        expect(system.resize(fd, 16_384)).toBe(0);
        expect(system.addSeals(fd, Seal.SEAL)).toBe(0);
        expect(system.addSeals(fd, Seal.GROW)).toBe(-Errno.EPERM);
        expect(system.status(fd)).toMatchObject({ kind: "regular", bytes: 16_384 });
        system.close(fd);
      });

      it("refuse windows of no size, of too many bytes and off the page grid (U147)", () => {
        const fd = system.createMemoryFile("ram", 8192, "test");
        const request = { fd, offset: 0, bytes: 4096, access: "shared" } as const;
        const errors = [{ bytes: 0 }, { bytes: MAP_BYTES_MAX + 1 }, { offset: 512 }];
        for (const wrong of errors)
          expect(system.map({ ...request, ...wrong }, "test")).toBe(-Errno.EINVAL);
        system.close(fd);
      });

      it("alone can be mapped: not sockets, events or what is closed (U144)", () => {
        const [a, b] = pair();
        const e = event();
        const request = { offset: 0, bytes: 4096, access: "shared" } as const;
        for (const fd of [a, e]) expect(system.map({ ...request, fd }, "t")).toBe(-Errno.ENODEV);
        expect(system.map({ ...request, fd: 999 }, "t")).toBe(-Errno.EBADF);
        closeAll([a, b, e]);
      });

      it("of one content have one device and inode (U173)", () => {
        const fds = [0, 1].map(() => system.createMemoryFile("ram", 4096, "test"));
        fds.push(system.duplicate(fds[0]!, "test"));
        const names = fds.map((fd) => {
          const status = system.status(fd);
          return typeof status === "number" ? "" : `${status.device}/${status.inode}`;
        });
        expect(names[2]).toBe(names[0]);
        expect(names[1]).not.toBe(names[0]);
        closeAll(fds);
      });
    });

    describe("files", () => {
      it("are read short at the end, written, flushed, emptied by range", () => {
        const fd = system.open(world.makeFile("disk", 8192), "read-write", "test");
        const view = newView(8192);
        const pieces = new PieceList(system, "test");
        view.u8.fill(5);
        pieces.add(view, 0, 8192);
        expect(system.write(fd, pieces, 0)).toBe(8192);
        expect(system.sync(fd)).toBe(0);
        expect(system.punchHole(fd, 0, 4096)).toBe(0);
        expect(system.read(fd, pieces, 4096 - 512)).toBe(4096 + 512);
        expect([view.u8[0], view.u8[511], view.u8[512]]).toEqual([0, 0, 5]);
        expect(system.read(fd, pieces, 8192)).toBe(0);
        expect(system.status(fd)).toMatchObject({ kind: "regular", bytes: 8192 });
        pieces.dispose();
        system.close(fd);
      });

      it("opened for reading refuse writes and shared mappings (U144)", () => {
        const path = world.makeFile("disk", 4096);
        const fd = system.open(path, "read", "test");
        const pieces = new PieceList(system, "test");
        pieces.add(newView(8), 0, 8);
        expect(system.write(fd, pieces, 0)).toBe(-Errno.EBADF);
        expect(system.punchHole(fd, 0, 4096)).toBe(-Errno.EBADF);
        const request = { fd, offset: 0, bytes: 4096 };
        expect(system.map({ ...request, access: "shared" }, "t")).toBe(-Errno.EACCES);
        const own = system.map({ ...request, access: "private" }, "t") as Mapping;
        system.unmap(own);
        pieces.dispose();
        system.close(fd);
      });

      it("are synced in the background, each told once", () => {
        const fd = system.open(world.makeFile("disk", 8192), "read-write", "test");
        const queue = system.createSyncQueue("test") as SyncQueue;
        const set = new PollSet(system, 1, "test");
        set.set(0, queue.fd, Poll.IN);
        expect(system.poll(set, 0)).toBe(0);
        expect([queue.start(fd, 7), queue.start(fd, 0xffff_fff0)]).toEqual([0, 0]);
        expect(queue.pending).toBe(2);
        const done: SyncDone[] = [];
        while (done.length < 2) {
          expect(system.poll(set, 10_000_000)).toBe(1);
          done.push(...queue.take());
        }
        expect(done.map((each) => each.id).sort((a, b) => a - b)).toEqual([7, 0xffff_fff0]);
        expect(done.every((each) => each.errno === 0)).toBe(true);
        expect([queue.pending, queue.take().length, system.poll(set, 0)]).toEqual([0, 0, 0]);
        expect(queue.start(999, 1)).toBe(-Errno.EBADF);
        queue.start(fd, 2);
        queue.dispose();
        set.dispose();
        system.close(fd);
      });

      it("that are missing, or closed, are errors", () => {
        expect(system.open(world.path("none"), "read", "test")).toBe(-Errno.ENOENT);
        expect(system.status(999)).toBe(-Errno.EBADF);
        expect(system.duplicate(999, "test")).toBe(-Errno.EBADF);
        expect(() => system.close(999)).toThrow("does not hold");
      });

      it("are named again from a number on, or by a number that is free", () => {
        const e = event();
        const high = system.duplicate(e, "test", 600);
        expect(high).toBeGreaterThanOrEqual(600);
        expect(system.duplicateTo(e, high + 7, "test")).toBe(high + 7);
        expect(system.duplicateTo(e, high, "test")).toBe(-Errno.EBUSY);
        closeAll([e, high, high + 7]);
      });

      it("lists of pieces go on where a short call stopped", () => {
        const pieces = new PieceList(system, "test");
        const view = newView(64);
        for (const at of [0, 16, 32]) pieces.add(view, at, 8);
        pieces.advance(10);
        expect(pieces.bytes).toBe(14);
        expect(pieces.pieceAddress(0)).toBe(system.addressOf(view.u8.buffer) + 18);
        pieces.advance(14);
        expect([pieces.count, pieces.bytes]).toEqual([0, 0]);
        pieces.dispose();
      });
    });

    describe("waiting", () => {
      it("counts events, and drains them once", () => {
        const e = event();
        expect(system.drain(e)).toBe(false);
        for (let index = 0; index < 3; index += 1) expect(system.signal(e)).toBe(0);
        expect(system.drain(e)).toBe(true);
        expect(system.drain(e)).toBe(false);
        expect(system.signal(999)).toBe(-Errno.EBADF);
        system.close(e);
      });

      it("returns what is ready, and times out", () => {
        const set = new PollSet(system, 4, "test");
        const e = event();
        const [a, b] = pair();
        set.set(0, e, Poll.IN);
        set.set(2, b, Poll.IN);
        const before = system.now();
        expect(system.poll(set, 2000)).toBe(0);
        expect(system.now() - before).toBeGreaterThanOrEqual(1900);
        system.signal(e);
        desk.send(a, "x");
        expect(system.poll(set, -1)).toBe(2);
        expect([0, 1, 2, 3].map((index) => set.ready(index))).toEqual([Poll.IN, 0, Poll.IN, 0]);
        system.close(a);
        set.clear(0);
        expect(system.poll(set, 0)).toBe(1);
        expect(set.ready(2) & Poll.HUP).toBe(Poll.HUP);
        set.set(1, 999, Poll.IN);
        system.poll(set, 0);
        expect(set.ready(1)).toBe(Poll.NVAL);
        set.dispose();
        closeAll([b, e]);
      });

      it("tells a listener with a connection, and a socket with room", () => {
        const set = new PollSet(system, 2, "test");
        const path = world.path("c.sock");
        const listener = system.listen(path, 4, "test");
        set.set(0, listener, Poll.IN);
        expect(system.poll(set, 0)).toBe(0);
        const client = system.connect(path, "test");
        set.set(1, client, Poll.IN | Poll.OUT);
        expect(system.poll(set, 0)).toBe(2);
        expect([set.ready(0), set.ready(1)]).toEqual([Poll.IN, Poll.OUT]);
        set.dispose();
        closeAll([client, listener]);
      });
    });
  });
}
