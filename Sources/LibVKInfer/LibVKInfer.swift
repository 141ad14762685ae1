// Nothing but what Package.swift says of the linking: the functions are in VKInferC.
import VKInferC
