import { describe, expect, it } from "vitest";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import { ControlChannel, FRAME_DESCRIPTORS_MAX } from "./control-channel.ts";

interface Frame {
  readonly name: string;
}

function make(socketBytes: number) {
  const kernel = new SimulatedKernel();
  kernel.socketBytes = socketBytes;
  const left = new SimulatedSystem(kernel);
  const right = new SimulatedSystem(kernel);
  const [one, other] = left.socketPair("test") as readonly [number, number];
  const rightFd = left.give(other, right, "test");
  left.close(other);
  return {
    left,
    right,
    sender: new ControlChannel<Frame, Frame>(left, one, "control"),
    receiver: new ControlChannel<Frame, Frame>(right, rightFd, "control"),
  };
}

describe("a control channel", () => {
  it("gives each frame its own descriptors, whatever is sent before and behind", () => {
    const { left, right, sender, receiver } = make(100_000);
    const events = Array.from({ length: 5 }, () => left.createEvent("test"));
    sender.post({ name: "none" });
    sender.post({ name: "two" }, events.slice(0, 2));
    sender.post({ name: "none again" });
    sender.post({ name: "three" }, events.slice(2));
    const came = receiver.receive();
    expect(came.map(({ frame, fds }) => [frame.name, fds.length])).toEqual([
      ["none", 0],
      ["two", 2],
      ["none again", 0],
      ["three", 3],
    ]);
    right.signal(came[3]!.fds[2]!);
    expect(left.drain(events[4]!)).toBe(true);
  });

  it("goes on where the socket had no room, in any number of pieces", () => {
    const { left, sender, receiver } = make(37);
    const event = left.createEvent("test");
    const names = ["a", "b".repeat(500), "ü".repeat(300)];
    for (const name of names) sender.post({ name }, [event]);
    expect(sender.isWaiting).toBe(true);
    const came: string[] = [];
    for (let turn = 0; turn < 200 && came.length < 3; turn += 1) {
      for (const { frame, fds } of receiver.receive()) {
        came.push(frame.name);
        expect(fds).toHaveLength(1);
      }
      sender.flush();
    }
    expect(came).toEqual(names);
    expect(sender.isWaiting).toBe(false);
  });

  it("gives −1 for descriptors there was no room for, and later frames their own", () => {
    const { left, right, sender, receiver } = make(100_000);
    const event = left.createEvent("test");
    const take = right.receive.bind(right);
    right.receive = (fd, slot, how, owner) => {
      const count = take(fd, slot, how, owner);
      // What a kernel does for a process whose table is full after one descriptor.
      const [first, ...others] = count > 0 ? slot.descriptors() : [];
      for (const one of others) right.close(one);
      if (others.length > 0) slot.complete(count, [first!], true);
      return count;
    };
    sender.post({ name: "none" });
    sender.post({ name: "three" }, [event, event, event]);
    sender.post({ name: "one" }, [event]);
    const came = receiver.receive();
    expect(came.map(({ frame, fds }) => [frame.name, ...fds.map((fd) => fd < 0)])).toEqual([
      ["none"],
      ["three", false, true, true],
      ["one", false],
    ]);
    receiver.dispose();
  });

  it("waits for room a bounded time", () => {
    const { left, sender, receiver } = make(20);
    sender.post({ name: "long".repeat(100) });
    const before = left.now();
    expect(sender.drain(5000)).toBe(false);
    expect(left.now() - before).toBeGreaterThanOrEqual(5000);
    left.kernel.idle = () => {
      receiver.receive();
      return true;
    };
    expect(sender.drain(5000)).toBe(true);
  });

  it("notices that the other end has gone, and closes what nobody took", () => {
    const { left, right, sender, receiver } = make(100_000);
    sender.post({ name: "x" }, [left.createEvent("test")]);
    sender.dispose();
    expect(receiver.receive().map(({ frame }) => frame.name)).toEqual(["x"]);
    expect(receiver.isClosed).toBe(true);
    receiver.post({ name: "to nobody" });
    expect(receiver.isWaiting).toBe(false);
    receiver.dispose();
    // The frame's descriptor is who took the frame's.
    expect(right.ledger.open.map(({ kind }) => kind)).toEqual(["descriptor"]);
    expect(FRAME_DESCRIPTORS_MAX).toBeLessThan(253);
  });
});
