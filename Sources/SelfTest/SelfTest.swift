package enum SelfTest {}
