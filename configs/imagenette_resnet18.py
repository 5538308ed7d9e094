"""ResNet-18 on Imagenette (ten classes of ImageNet, 160 pixels) at 4, 3 or 2 bits, or in float.

    python -m plq.main --config configs/imagenette_resnet18.py:w4a4      (w3a3, w2a2, float)

60 epochs (8,820 steps) of SGD, batch 64, crops of 128 pixels, lr 0.05 along a cosine; pre-activation blocks; f along a
cosine to 0 at a quarter of the run; first and last layer in full precision.

Hardware, time, accuracy: not yet run; there is no published few-bit figure for this set.
"""

from plq.config.load import default

ARGUMENTS = ("w4a4", "w3a3", "w2a2", "float")


def get_config(argument=ARGUMENTS[0]):
    config = default()
    config.data.name = "imagenette/160px-v2"
    config.data.crop = "resized"
    config.data.image_size = 128
    config.data.flip = True
    config.data.batch_size = 64
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.model.name = "resnet18"
    config.model.block = "pre"
    config.quant.weight_bits = config.quant.activation_bits = 32 if argument == "float" else int(argument[-1])
    config.quant.activations = "relu" if argument == "float" else "clip"
    config.factor.name = "constant" if argument == "float" else "cosine"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = 0.05
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = "l2"
    config.train.epochs = 60.0
    return config
