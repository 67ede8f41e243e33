/** Writes a machine profile as the YAML that {@link profileFromYaml} reads. */
import type { MachineProfile } from "../sim/profiles/machine-profile.ts";
import { yamlText } from "./yaml-text.ts";

const SCHEMA = "iommukit/profile@1";

/** The profile as a file to change. */
export function profileToYaml(profile: MachineProfile): string {
  const { name, about, iommu, cpusByNode, software, disk, buffers, host, prices } = profile;
  return yamlText({
    schema: SCHEMA,
    name,
    about,
    iommu,
    cpusByNode,
    software: { ...software },
    disk: { ...disk },
    buffers: { ...buffers },
    ...(host === null ? {} : { host: { ...host } }),
    prices: prices.map(({ step, on, eachNs, unitNs, remoteUnitNs, source, fittedOn }) => ({
      step,
      on,
      eachNs,
      ...(unitNs === 0 ? {} : { unitNs }),
      ...(remoteUnitNs === 0 ? {} : { remoteUnitNs }),
      source,
      ...(fittedOn === null ? {} : { fittedOn }),
    })),
  });
}
