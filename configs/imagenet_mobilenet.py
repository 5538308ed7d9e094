"""MobileNetV1 and V2 on ImageNet at 4 bits with learned step sizes per channel (LSQ), or in float.

    python -m plq.main --config configs/imagenet_mobilenet.py:v2_float --workdir runs/float_v2
    python -m plq.main --config configs/imagenet_mobilenet.py:v2_w4a4 --config.model.init_from=runs/float_v2
    (v1_float, v1_w4a4)

Depthwise convolutions have few weights per channel and channels of very different ranges: hence a step for each.
First and last weights at 8 bits; 90 epochs (450,360 steps) of SGD, batch 256, lr 0.01 (float 0.1) along a cosine after
a warm-up, weight decay 4e-5. f along a cosine to 0 at a quarter of the run. In float ReLU, not ReLU6.

Hardware, time: not yet run. Accuracy: not yet run; published for V1 at 4 bits by Brevitas, with a recipe of its own:
70.86 %.
"""

from plq.config.load import default

ARGUMENTS = ("v2_w4a4", "v2_float", "v1_w4a4", "v1_float")


def get_config(argument=ARGUMENTS[0]):
    version, precision = argument.split("_")
    config = default()
    config.data.name = "imagenet2012"
    config.data.crop = "resized"
    config.data.image_size = 224
    config.data.flip = True
    config.data.batch_size = 256
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.model.name = f"mobilenet_{version}"
    if precision == "float":
        config.quant.weight_bits = config.quant.activation_bits = 32
        config.quant.activations = "relu"
        config.factor.name = "constant"
    else:
        config.quant.weight_bits = config.quant.activation_bits = 4
        config.quant.weights = config.quant.activations = "lsq"
        config.quant.granularity = "channel"
        config.quant.first_bits = config.quant.last_bits = 8
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1 if precision == "float" else 0.01
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = 0.05
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay = "l2"
    config.train.epochs = 90.0
    config.report.every_steps = 100
    return config
