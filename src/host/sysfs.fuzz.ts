/** Fuzzes captures of real hosts: files cut, bytes flipped, links bent; whatever is left is read. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { Random } from "../random.ts";
import { inspectSvg } from "../report/inspect-svg.ts";
import { renderInspected } from "../report/inspect-text.ts";
import { machineProblems } from "../topology/validate.ts";
import { ArchiveTree } from "./archive-tree.ts";
import { inspectMachine } from "./inspect.ts";
import { capturePath, realHosts } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";
import { readTar, type TarMember } from "./tar.ts";

const heading = { name: "fuzz", release: null, architecture: null };

/** Damages a member, or leaves it out. */
function damaged(member: TarMember, all: readonly TarMember[], random: Random): TarMember[] {
  const kind = random.below(8);
  if (kind === 0) return [];
  if (kind === 1) return [{ ...member, bytes: member.bytes.subarray(0, random.below(64)) }];
  if (kind === 2) return [{ ...member, target: all[random.below(all.length)]!.path }];
  if (kind === 3) return [{ ...member, path: all[random.below(all.length)]!.path }];
  const bytes = member.bytes.slice();
  for (let count = 0; count < 4 && bytes.length > 0; count += 1) {
    bytes[random.below(bytes.length)] = random.below(256);
  }
  return [{ ...member, bytes }];
}

/** One damaged host through everything. @returns how many functions were left */
function fuzz(seed: number, members: readonly TarMember[]): number {
  const random = new Random(seed);
  const share = 1 + random.below(30);
  const left = members.flatMap((member) =>
    random.chance(1, share) ? damaged(member, members, random) : [member],
  );
  const { machine, findings } = readHost(new ArchiveTree("fuzz", left));
  machineProblems(machine);
  const result = inspectMachine(machine, { findings });
  renderInspected(result, heading, 60 + random.below(60), (_role, text) => text);
  inspectSvg(result, heading);
  return machine.functions.length;
}

it("reads what is left of a damaged host", () => {
  const hosts = realHosts.map((name) => readTar(gunzipSync(readFileSync(capturePath(name))), name));
  let functions = 0;
  for (let seed = 1; seed <= 400; seed += 1) functions += fuzz(seed, hosts[seed % 2]!);
  // A canary: damage does not keep the reader from reading most of it.
  expect(functions).toBeGreaterThan(4000);
});
