//! What this process and machine use: RSS, VmHWM, cgroups, PSI.
