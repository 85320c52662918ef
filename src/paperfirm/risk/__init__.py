"""The risk manager: says yes or no to every order before it leaves, and no whenever it does not know."""
