"""Where other people's training engines meet this project; each is imported only when it is used."""
