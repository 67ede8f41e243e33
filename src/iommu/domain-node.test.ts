import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { DomainNode } from "./domain-node.ts";

const near = { node: 0 };
const far = { node: 1 };
const unknown = { node: -1 };

describe("the node of a domain", () => {
  it("is that of the unit whose first reference came last, not of the last device", () => {
    const nid = new DomainNode(true);
    expect(nid.node).toBe(-1);
    nid.attach(near, 1, 0);
    nid.attach(far, 2, 1);
    expect(nid.node).toBe(1);
    nid.attach(near, 3, 0);
    expect(nid.node).toBe(1);
  });

  it("is that of the device left last attached once the last reference of any unit goes", () => {
    const nid = new DomainNode(true);
    nid.attach(near, 1, 4);
    nid.attach(near, 2, 5);
    nid.attach(far, 3, 6);
    nid.detach(far, 3, false);
    expect(nid.node).toBe(5);
    nid.detach(near, 2, false);
    expect(nid.node).toBe(5);
    nid.detach(near, 1, false);
    expect(nid.node).toBe(-1);
  });

  it("of units without one is unset for the first device and that of a device from the next on", () => {
    const nid = new DomainNode(true);
    nid.attach(unknown, 1, 7);
    expect(nid.node).toBe(-1);
    nid.attach(unknown, 2, 7);
    expect(nid.node).toBe(-1);
    nid.attach({ node: -1 }, 3, 8);
    expect(nid.node).toBe(7);
  });

  it("without the units' is unset until a second unit comes, then that of a device, for long", () => {
    const nid = new DomainNode(false);
    nid.attach(near, 1, 4);
    nid.attach(near, 2, 5);
    expect(nid.node).toBe(-1);
    nid.attach(far, 3, 6);
    expect(nid.node).toBe(5);
    nid.attach({ node: 2 }, 4, 7);
    expect(nid.node).toBe(5);
    nid.detach(near, 2, false);
    expect(nid.node).toBe(5);
    nid.detach(near, 1, false);
    expect(nid.node).toBe(7);
  });

  it("passes devices over whose own node nobody knows", () => {
    const nid = new DomainNode(true);
    nid.attach(near, 1, 3);
    nid.attach(near, 2, -1);
    nid.attach(far, 9, -1);
    nid.detach(far, 9, false);
    expect(nid.node).toBe(3);
  });

  it("follows the units of PASIDs and never falls back to their devices", () => {
    const nid = new DomainNode(true);
    nid.attach(near, 1, null);
    nid.attach(far, 1, null);
    expect(nid.node).toBe(1);
    nid.detach(far, 1, true);
    expect(nid.node).toBe(-1);
  });

  it("refuses to leave a unit or a device that it never came to", () => {
    const nid = new DomainNode(true);
    expect(() => nid.detach(near, 1, false)).toThrow(AssertionError);
    nid.attach(near, 1, 0);
    expect(() => nid.detach(near, 2, false)).toThrow(AssertionError);
  });
});
