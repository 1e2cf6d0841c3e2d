"""cifar_tl: interactive transfer learning for image classification."""
