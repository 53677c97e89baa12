// Command keyhaul moves a running Redis or Valkey data set to another one and keeps the two in step.
package main

func main() {}
