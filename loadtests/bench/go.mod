module synapse-bench

go 1.22
