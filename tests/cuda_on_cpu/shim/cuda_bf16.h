// Empty: bfloat16 is part of cuda_on_cpu.h, which every kernel reads first.
#pragma once
