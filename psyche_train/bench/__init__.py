"""What a member's step costs beyond forward and backward, measured on the machine it runs on."""
