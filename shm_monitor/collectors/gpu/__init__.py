"""What NVML says of each device."""
