// Empty: half precision is part of cuda_on_cpu.h, which every kernel reads first.
#pragma once
