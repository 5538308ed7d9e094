r"""The published SVHN table: three quantizers, two activations, four widths, in the authors' set-up.

    python -m plq.main --config configs/svhn.py:dorefa_w1a2_0.25
    python -m plq.main --config configs/svhn.py:dorefa_w1a2_0.25 --config.factor.name=constant     (the plain network)

    plq compare --config configs/svhn.py --out runs/svhn --seeds 3 \
      --vary quant.weights+quant.weight_bits=dorefa+1,xnor+1,syq+2 --vary quant.activation_bits=1,2 \
      --vary model.width=0.125,0.25,0.5,1.0      (all of it, plain and EXP-Net, beside the published points)

The argument is one column and one row: dorefa or xnor, w1a1 or w1a2; syq, w2a1 or w2a2; 0.125, 0.25, 0.5 or 1.0.
200 epochs of train and extra (944,200 steps), batch 128: Adam at 0.001, halved after 100 epochs; f along a cosine to 0
at 50; the branch concatenated; min(1, |x|), dropout 0.5, brightness and contrast, 40x40 pixels. The authors' plain
network has another learning rate after epoch 100 (a tenth); here both have the same.

Hardware, time: not yet run. Accuracy: not yet run; read off the authors' figure, in %, plain -> EXP-Net:

    width  dorefa 1/1      dorefa 1/2      xnor 1/1        xnor 1/2        syq 2/1         syq 2/2
    0.125  81.61 -> 82.72  84.26 -> 86.06  81.91 -> 82.69  85.15 -> 85.66  84.43 -> 85.73  88.38 -> 90.08
    0.25   90.11 -> 92.15  92.49 -> 93.78  91.20 -> 91.53  92.75 -> 93.91  92.83 -> 93.88  94.55 -> 95.66
    0.5    95.53 -> 95.83  96.41 -> 96.83  95.29 -> 95.82  96.46 -> 96.92  96.24 -> 96.54  97.04 -> 97.33
    1.0    97.22 -> 97.33  97.58 -> 97.62  97.09 -> 97.22  97.53 -> 97.58  97.16 -> 97.29  97.62 -> 97.63
"""

from plq.config.load import default

COLUMNS = ("dorefa_w1a1", "dorefa_w1a2", "xnor_w1a1", "xnor_w1a2", "syq_w2a1", "syq_w2a2")
ARGUMENTS = tuple(f"{column}_{width}" for width in (0.125, 0.25, 0.5, 1.0) for column in COLUMNS)


def get_config(argument=ARGUMENTS[0]):
    weights, bits, width = argument.split("_")
    config = default()
    config.data.name = "svhn_cropped"
    config.data.image_size = 40
    config.data.brightness = 30.0
    config.data.contrast = (0.5, 1.5)
    config.model.width = float(width)
    config.model.dropout = 0.5
    config.quant.weights = weights
    config.quant.weight_bits, config.quant.activation_bits = int(bits[1]), int(bits[3])
    config.quant.activations = "abs"
    config.expansion.merge = "concat"
    config.factor.end = 0.25
    config.optimizer.learning_rate = 0.001
    config.optimizer.schedule = "staircase"
    config.optimizer.boundaries = (0.5,)
    config.optimizer.multipliers = (0.5,)
    config.optimizer.weight_decay = 1e-7
    config.optimizer.decay = "l2"
    config.optimizer.decay_roles = ("dense",)
    config.train.epochs = 200.0
    return config
