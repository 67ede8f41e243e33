import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { positionText, StackError } from "../errors.ts";
import { profiles } from "../sim/profiles/catalog.ts";
import { machineOf } from "../sim/profiles/machine-profile.ts";
import { profileFromYaml, scenarioFromYaml } from "./read-profile.ts";
import { profileToYaml } from "./write-profile.ts";

const SMALL = `schema: iommukit/profile@1
name: small
cpusByNode: [2, 2]
software: { submitNs: 700, completeNs: 700.5 }
disk: { channels: 8, readNs: 80000, writeNs: 20000, bytesPerSecond: 2.5e9 }
prices:
  - { step: virtqueueKick, on: virtio-iommu request lock, eachNs: 3600 }
`;
const SCENARIO = `schema: iommukit/scenario@1
machine: this-qemu
policies: [strict, lazy-mq]
workload: { fio: job.fio, cpus: 0-1 }
`;

function refusal(read: (text: string, file: string) => unknown, text: string): string {
  try {
    read(text, "f.yaml");
  } catch (error) {
    expect(error).toBeInstanceOf(StackError);
    const { at, message, hint } = error as StackError;
    return `${positionText(at!)} ${message} / ${hint}`;
  }
  return "accepted";
}

describe("a machine profile", () => {
  it.each(profiles.map((profile) => [profile.name, profile] as const))(
    "%s is the same after writing and reading, and makes a machine",
    (_name, profile) => {
      const again = profileFromYaml(profileToYaml(profile), "p.yaml");
      expect(again).toEqual({ schema: "iommukit/profile@1", ...profile });
      expect(machineOf(again).cpus).toBeGreaterThan(0);
    },
  );

  it("names a source for every figure of a built-in machine", () => {
    for (const { name, software, disk, buffers, prices } of profiles) {
      for (const { source } of [software, disk, buffers, ...prices]) {
        expect(source.length, name).toBeGreaterThan(10);
      }
    }
  });

  it("needs little", () => {
    const profile = profileFromYaml(SMALL, "p.yaml");
    expect(profile).toMatchObject({ iommu: "virtio", host: null, cpusByNode: [2, 2] });
    expect(machineOf(profile)).toMatchObject({ cpus: 4, nodeOfCpu: [0, 0, 1, 1] });
  });

  const without = (from: string, to: string) => SMALL.replace(from, to);
  it.each([
    [without("[2, 2]", "[0]"), /^f.yaml:3:13 the machine "small" has no CPU/],
    [without("[2, 2]", "[4096, 1]"), /^f.yaml:3:13 .*4097 CPUs/],
    [without("[2, 2]", "[]"), /^f.yaml:3:13 cpusByNode/],
    [without("2.5e9", "0"), /^f.yaml:5:69 the disk of .* moves nothing: its bandwidth is 0/],
    [without("2.5e9", "-1"), /^f.yaml:5:69 disk.bytesPerSecond: -1 is no number from 0/],
    [without("2.5e9", ".nan"), /^f.yaml:5:69 disk.bytesPerSecond: this is no number/],
    [without("2.5e9", ".inf"), /^f.yaml:5:69 disk.bytesPerSecond: this is no number/],
    [without("channels: 8", "channels: 0"), /^f.yaml:5:19 .*takes no request/],
    [without("700, completeNs: 700.5", "0, completeNs: 0"), /^f.yaml:4:11 .*no software/],
    [without("3600", "-3600"), /^f.yaml:7:67 prices\[0\].eachNs: -3600 is no number from 0/],
    [without("virtqueueKick", "virtqueKick"), /^f.yaml:7:13 .*"virtqueKick".*mean "virtqueueKick"/],
    [without("eachNs", "eachNS"), /^f.yaml:7:59 there is no key "eachNS" in prices\[0\] .*eachNs/],
    [`${SMALL}  - { step: virtqueueKick }\n`, /^f.yaml:8:13 .*has a price already/],
    [`${SMALL}iommu: smmu\n`, /^f.yaml:8:8 iommu: this is none of virtio, vtd.*docs\/run.md/],
    [
      SMALL.replace("request lock", "requests lock"),
      /^f.yaml:7:32 prices\[0\].on: there is no resource "virtio-iommu requests lock".*IOVA tree lock/s,
    ],
    [`${SMALL}iommu: vtd\nhost: { guestPages: 4194304, blockPages: 1 }\n`, /^f.yaml:9:7 .*bare/],
    [`${SMALL}host: { guestPages: 1, blockPages: 1 }\n`, /^f.yaml:8:21 host.guestPages: 1 is no/],
    ["", /^f.yaml:1:1 a profile is a map/],
  ])("%j is refused with its place", (text, message) => {
    expect(refusal(profileFromYaml, text)).toMatch(message);
  });

  it("damaged in any way is read or refused, never a crash", () => {
    const whole = profileToYaml(profiles[0]!);
    const damage = fc.tuple(fc.nat(whole.length), fc.nat(12), fc.string({ maxLength: 6 }));
    fc.assert(
      fc.property(damage, ([at, length, text]) => {
        refusal(profileFromYaml, whole.slice(0, at) + text + whole.slice(at + length));
      }),
      { seed: 7, numRuns: 300 },
    );
  });
});

describe("a scenario", () => {
  it("names a machine, policies and a workload", () => {
    expect(scenarioFromYaml(SCENARIO, "s.yaml")).toMatchObject({
      machine: "this-qemu",
      jobs: { kind: "file", value: "job.fio" },
      cpus: [0, 1],
      seed: null,
    });
  });

  it("may hold its machine and its jobs", () => {
    const body = SMALL.split("\n").slice(1).join("\n  ");
    const text = `schema: iommukit/scenario@1\nmachine:\n  ${body}
workload:
  jobs: |
    [a]
    rw=randread
`;
    const { machine, jobs } = scenarioFromYaml(text, "s.yaml");
    expect(machine).toMatchObject({ name: "small" });
    expect(jobs).toEqual({ kind: "text", value: "[a]\nrw=randread\n" });
    const impossible = text.replace("[2, 2]", "[0, 0]");
    expect(refusal(scenarioFromYaml, impossible)).toMatch(/^f.yaml:4:15 .*has no CPU/);
  });

  it.each([
    [SCENARIO.replace("strict,", "strikt,"), /^f.yaml:3:12 .*"strikt" .*did you mean "strict"/],
    [SCENARIO.replace("fio: job.fio, ", ""), /^f.yaml:4:11 .*either fio.*or jobs/],
    [SCENARIO.replace("cpus: 0-1", "cpus: x"), /^f.yaml:4:33 .*list of numbers/],
    [`${SCENARIO}seed: -1\n`, /^f.yaml:5:7 seed: -1 is no whole number/],
    [`${SCENARIO}timeMs: 0\n`, /^f.yaml:5:9 timeMs: 0 is no number/],
    [SCENARIO.replace("machine", "machines"), /^f.yaml:/],
    ["- 1\n", /^f.yaml:1:1 a scenario is a map/],
    ["a: [", /^f.yaml:1:\d+ this is not YAML/],
  ])("%j is refused with its place", (text, message) => {
    expect(refusal(scenarioFromYaml, text)).toMatch(message);
  });
});
