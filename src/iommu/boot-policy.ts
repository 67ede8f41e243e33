/**
 * The default domain type of a system: what kernel configuration, command line and drivers make it.
 *
 * Source: drivers/iommu/iommu.c: iommu_set_def_domain_type, iommu_dma_setup, iommu_subsys_init,
 * iommu_set_dma_strict; drivers/iommu/Kconfig: IOMMU_DEFAULT_DMA_STRICT, IOMMU_DEFAULT_DMA_LAZY.
 */
import { DomainType } from "./domain.ts";

/** What decides. */
export interface BootChoices {
  /** Architecture of the kernel: x86 and s390 default to lazy. */
  readonly architecture: "x86" | "s390" | "other";
  /** `iommu.passthrough=` of the command line. */
  readonly passthrough?: boolean;
  /** `iommu.strict=` of the command line. */
  readonly strict?: boolean;
  /** CONFIG_IOMMU_DEFAULT_PASSTHROUGH. */
  readonly configPassthrough?: boolean;
  /** CONFIG_IOMMU_DEFAULT_DMA_STRICT; the architecture decides without it. */
  readonly configStrict?: boolean;
  /** Whether memory is encrypted, so that untranslated DMA does not work. */
  readonly memoryEncryption?: boolean;
  /** Whether an IOMMU driver insists on strict, as VT-d does in caching mode. */
  readonly driverForcesStrict?: boolean;
}

/** What comes of it. */
export interface BootPolicy {
  /** DMA, DMA_FQ or IDENTITY. */
  readonly defaultType: DomainType;
  /** The two lines that the kernel logs while drivers have not spoken yet. */
  readonly log: readonly string[];
}

/** Decides the system's default type. */
export function bootPolicy(choices: BootChoices): BootPolicy {
  const fromConfig = choices.configPassthrough === true && choices.memoryEncryption !== true;
  const isPassthrough = choices.passthrough ?? fromConfig;
  const isLazyArchitecture = choices.architecture !== "other";
  const isStrict = choices.strict ?? choices.configStrict ?? !isLazyArchitecture;
  const suffix = (chosen: boolean | undefined) =>
    chosen === undefined ? "" : " (set via kernel command line)";
  const type = isPassthrough ? "Passthrough" : "Translated";
  const log = [`Default domain type: ${type}${suffix(choices.passthrough)}`];
  if (isPassthrough) return { defaultType: DomainType.IDENTITY, log };
  const mode = isStrict ? "strict" : "lazy";
  log.push(`DMA domain TLB invalidation policy: ${mode} mode${suffix(choices.strict)}`);
  const isLazy = !isStrict && choices.driverForcesStrict !== true;
  return { defaultType: isLazy ? DomainType.DMA_FQ : DomainType.DMA, log };
}
