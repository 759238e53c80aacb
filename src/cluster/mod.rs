//! The kube API of the new cluster, through a tunnel, or by `oc` on the bastion.
